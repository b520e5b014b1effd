package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

func newLogs(out func() output) *cobra.Command {
	o := &fleetOptions{out: out, tolerant: true}
	cmd := &cobra.Command{
		Use:   "logs [DIR]",
		Short: "Collect what helps to find out what is wrong with a cluster",
		Long: `Collect, into a folder that is new or empty, what helps to find out what is wrong with a cluster: of every
host the journals of systemd, kubelet and containerd, what its pods print, the states of containers,
units, processes, addresses, routes and firewalls, the steps that kubewright did there; of the cluster nodes,
pods, events and the like, as the API server has them; of containers their consoles. Secrets are none
of it, as far as none stands in what pods print, in their specifications, or in arguments of processes.

Nothing is changed, and nothing is waited for: what does not answer is reported and left out.`,
		Example: `  kubewright logs --name ci
  kubewright logs --name ci /tmp/ci-logs
  kubewright logs -f cluster.yaml /tmp/logs`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.document(cmd.Context())
			if err != nil {
				return misuse(err)
			}
			return o.within(cmd.Context(), func(ctx context.Context) error { return o.runLogs(ctx, c, append(args, "")[0]) })
		},
	}
	o.reachFlags(cmd)
	o.kind.nameFlags(cmd)
	return cmd
}

// logsResult is what logs prints as JSON.
type logsResult struct {
	Kind    string `json:"kind"`
	Cluster string `json:"cluster"`
	Folder  string `json:"folder"`
}

func (o *fleetOptions) runLogs(ctx context.Context, c *config.Cluster, dir string) error {
	v := newView(o.out())
	defer v.close()
	v.hush(true)
	dir, err := o.collect(ctx, c, dir)
	if err != nil {
		return err
	}
	if o.out() == "json" {
		v.result(logsResult{Kind: "Logs", Cluster: c.Metadata.Name, Folder: dir})
		return nil
	}
	fmt.Println(dir)
	return nil
}

// collect writes all of it into a folder that is new or empty, by default one that is named after the cluster. The
// error lists what could not be had; the rest is there.
func (o *fleetOptions) collect(ctx context.Context, c *config.Cluster, dir string) (string, error) {
	dir, err := filepath.Abs(cmp.Or(dir, "kubewright-logs-"+c.Metadata.Name))
	if err != nil {
		return dir, err
	}
	if full(dir) {
		return dir, misuse(fmt.Errorf("%s is not empty: name another folder, or remove it", dir))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return dir, misuse(err)
	}
	var consoles error
	if c.Spec.Provider.Name == "kind" { // also of containers that have stopped
		k, err := o.kind.open(ctx)
		if err != nil {
			return dir, err
		}
		consoles = k.Consoles(ctx, c.Metadata.Name, dir)
	}
	o.kind.hasty = true
	f, err := o.connect(ctx, c, "")
	if err != nil {
		return dir, errors.Join(err, consoles)
	}
	defer f.close()
	return dir, errors.Join(consoles, gather(ctx, f, dir))
}

// full tells of a folder that has something in it.
func full(dir string) bool {
	have, err := os.ReadDir(dir)
	return err == nil && len(have) > 0
}

// gather asks all hosts, and one of the control planes.
func gather(ctx context.Context, f *fleet, dir string) error {
	errs := make(chan error, len(f.machines)+1)
	go func() { errs <- phases.ClusterEvidence(ctx, f.cluster, f.machines, filepath.Join(dir, "cluster")) }()
	for _, m := range f.machines {
		go func() {
			err := m.Evidence(ctx, f.cluster, filepath.Join(dir, m.Node.Name))
			if err != nil {
				err = fmt.Errorf("%s: %w", m.Node.Name, err)
			}
			errs <- err
		}()
	}
	var all []error
	for range cap(errs) {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// logsOf collects after up has failed, before the containers are removed, if they were asked for or a CI runs this.
func (o *fleetOptions) logsOf(ctx context.Context, c *config.Cluster) {
	if o.kind.logs == "" && os.Getenv("CI") == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	o.tolerant = true
	dir := o.kind.logs
	for i := 1; dir == "" || o.kind.logs == "" && full(dir); i++ { // a runner's folder may have those of earlier runs
		dir = "kubewright-logs-" + c.Metadata.Name
		if i > 1 {
			dir += "-" + strconv.Itoa(i)
		}
	}
	dir, err := o.collect(ctx, c, dir)
	if err != nil {
		fmt.Fprintf(os.Stderr, "logs: %v\n", err)
	}
	if errors.As(err, new(usageError)) { // what is there is of another run
		return
	}
	fmt.Fprintf(os.Stderr, "what helps to find out why is in %s\n", dir)
}
