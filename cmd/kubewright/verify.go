package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/pki"
	"github.com/kubewright/kubewright/verify"
)

type verifyOptions struct {
	verify.Options
	fleet      fleetOptions
	kubeconfig string
	context    string
	format     string
	cleanup    bool
	timeout    time.Duration
}

func newVerify() *cobra.Command {
	o := &verifyOptions{fleet: fleetOptions{tolerant: true, out: func() output { return "text" }}}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Show on the running cluster what a cluster must do",
		Long: `Show on the running cluster what a cluster must do, statement by statement, and name in one
line each what is broken. A kubeconfig is enough, of any cluster; with -f, what only its hosts
can show is looked at over SSH as well.

Pods on every node, in namespaces of their own, look at the cluster from inside, and one node is
cordoned for a moment. All that is undone at the end; what a run left that was killed, the next
one undoes, or --cleanup, so only one may run at a time. The exit code is 1 when a check fails.

The pods run kubewright itself, from the image that --image names. A bundle has it, and hosts
that were made from one have it already; a cluster of somebody else's pulls it.

` + describeChecks(),
		Example: `  # on a control plane, or where your kubeconfig is
  kubewright verify
  kubewright verify --context prod --only 4,pod-network

  # the hosts too; for a CI system
  kubewright verify -f cluster.yaml
  kubewright verify -o junit

  # a cluster of somebody else's, whose nodes pull from their own registry
  kubewright verify --kubeconfig admin.conf --image registry.example.com/kubewright:v0.1.0

  # after a run that was killed
  kubewright verify --cleanup`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd) },
	}
	o.fleet.hostFlags(cmd, "file with the Cluster document, whose hosts are looked at over SSH too; - is standard input")
	o.fleet.kind.nameFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: "+pki.AdminConf+" where it can be read, else yours)")
	f.StringVar(&o.context, "context", "", "context of the kubeconfig (default: with -f the document's name, else the current one)")
	f.StringVar(&o.Image, "image", bundle.OwnImage(version), "image of the pods: this version of kubewright")
	f.StringSliceVar(&o.Only, "only", nil, "rows or names of the checks to run (default: all)")
	f.StringSliceVar(&o.Skip, "skip", nil, "rows or names of checks to leave out")
	f.BoolVar(&o.cleanup, "cleanup", false, "only undo what a killed run left")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "for the whole run, without the cleaning up")
	f.StringVarP(&o.format, "output", "o", "text", "what to print: text, json, or junit (the XML that CI systems read)")
	must(cmd.MarkFlagFilename("kubeconfig"))
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json", "junit"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func describeChecks() string {
	var b strings.Builder
	for _, c := range verify.Checks() {
		fmt.Fprintf(&b, "  %2s  %-15s %s\n", row(c.Row), c.Name, c.Statement)
	}
	return b.String()
}

// row is empty where a check has none.
func row(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func (o *verifyOptions) run(ctx context.Context, cmd *cobra.Command) error {
	if !slices.Contains([]string{"text", "json", "junit"}, o.format) {
		return misuse(fmt.Errorf("--output %q: write text, json or junit", o.format))
	}
	if err := o.Validate(); err != nil {
		return misuse(err)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	var document *config.Cluster
	if o.fleet.named() {
		var err error
		if document, err = o.fleet.document(ctx); err != nil {
			return misuse(err)
		}
	}
	var err error
	if o.Kubeconfig, err = o.readKubeconfig(document); err != nil {
		return misuse(err)
	}
	if o.cleanup {
		return o.clean(ctx, cmd.OutOrStdout())
	}
	if document != nil {
		f, err := o.fleet.connect(ctx, document, "")
		if err != nil {
			return err
		}
		defer f.close()
		o.Hosts = f.runners()
		for _, m := range f.machines {
			if m.Err != nil {
				o.unseen(cmd.ErrOrStderr(), m.Node.Name, m.Err)
			}
		}
	}
	o.Contexts = tryContexts
	o.Report = o.reporter(cmd.ErrOrStderr())
	began := time.Now()
	results, err := verify.Run(ctx, o.Options)
	if err != nil {
		return err
	}
	if err := o.print(cmd.OutOrStdout(), results, time.Since(began)); err != nil {
		return err
	}
	if n := count(results)[verify.Fail]; n > 0 {
		return fmt.Errorf("%d of %d checks failed", n, len(results))
	}
	return nil
}

// readKubeconfig is the one context that counts, with its files read in.
func (o *verifyOptions) readKubeconfig(document *config.Cluster) ([]byte, error) {
	path := o.kubeconfig
	if path == "" {
		path = pki.AdminConf
		if f, err := os.Open(path); err == nil {
			f.Close()
		} else if path, err = kubeconfigPath("", os.Getenv, os.Geteuid(), homeOf); err != nil {
			return nil, err
		}
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: run this on a control plane as root, or where your kubeconfig is, or name one with --kubeconfig", err)
	} else if err != nil {
		return nil, err
	}
	all, err := clientcmd.Load(b)
	if err != nil {
		return nil, fmt.Errorf("%s is no kubeconfig: %w", path, err)
	}
	name := o.context
	if name == "" && document != nil {
		own := document.Metadata.Name
		if document.Spec.Provider.Name == "kind" {
			own = "kind-" + own
		}
		if all.Contexts[own] != nil {
			name = own
		}
	}
	if name != "" {
		if all.Contexts[name] == nil {
			return nil, fmt.Errorf("--context: %s: %w", path, noContext(all, name))
		}
		all.CurrentContext = name
		if b, err = clientcmd.Write(*all); err != nil {
			return nil, err
		}
	}
	one, err := source(b, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return clientcmd.Write(*one)
}

// runners are the hosts that answer, by their nodes' names.
func (f *fleet) runners() map[string]verify.Runner {
	all := map[string]verify.Runner{}
	for _, m := range f.machines {
		if m.Err == nil {
			all[m.Node.Name] = func(ctx context.Context, argv ...string) (string, error) {
				out, err := m.Host.Run(ctx, host.Query(argv...))
				return string(out.Stdout), err
			}
		}
	}
	return all
}
