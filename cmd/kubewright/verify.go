package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/pki"
	"github.com/kubewright/kubewright/verify"
)

type verifyOptions struct {
	verify.Options
	kubeconfig string
	cleanup    bool
	timeout    time.Duration
	out        func() output
}

func newVerify(out func() output) *cobra.Command {
	o := &verifyOptions{out: out}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Show on the running cluster what a cluster must do",
		Long: `Show on the running cluster what a cluster must do, statement by statement.

Pods on every node, in namespaces of their own, look at the cluster from inside. They
are removed at the end; what a run left that was killed, the next one removes, so only
one may run at a time. The exit code is 1 when a check fails.

` + describeChecks(),
		Example: `  kubewright verify
  kubewright verify --kubeconfig admin.conf --only 4,pod-network
  kubewright verify --cleanup`,
		Args:   cobra.NoArgs,
		Hidden: true, // until it shows every statement
		RunE:   func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.kubeconfig, "kubeconfig", pki.AdminConf, "kubeconfig of the cluster")
	f.StringVar(&o.Image, "image", verify.DefaultImage, "image of the pods: busybox's sh, httpd, ip, nslookup, ping, traceroute, wget")
	f.StringSliceVar(&o.Only, "only", nil, "rows or names of the checks to run (default: all)")
	f.StringSliceVar(&o.Skip, "skip", nil, "rows or names of checks to leave out")
	f.BoolVar(&o.cleanup, "cleanup", false, "only remove what a killed run left")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "for the whole run, without the cleaning up")
	must(cmd.MarkFlagFilename("kubeconfig"))
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

func (o *verifyOptions) run(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	var err error
	if o.Kubeconfig, err = os.ReadFile(o.kubeconfig); err != nil {
		return fmt.Errorf("%w: run this on a control plane as root, or name a kubeconfig with --kubeconfig", err)
	}
	if o.cleanup {
		return o.clean(ctx, w)
	}
	if o.out() == "json" {
		events := json.NewEncoder(os.Stderr)
		o.Report = func(r verify.Result) { must(events.Encode(r)) }
	}
	results, err := verify.Run(ctx, o.Options)
	if err != nil {
		return err
	}
	count := map[verify.Status]int{}
	for _, r := range results {
		count[r.Status]++
	}
	if o.out() == "json" {
		err = json.NewEncoder(w).Encode(struct {
			Kind    string                `json:"kind"`
			Count   map[verify.Status]int `json:"count"`
			Results []verify.Result       `json:"results"`
		}{"Verify", count, results})
	} else {
		err = printResults(w, results)
	}
	if err != nil {
		return err
	}
	if n := count[verify.Fail]; n > 0 {
		return fmt.Errorf("%d of %d checks failed", n, len(results))
	}
	return nil
}

func (o *verifyOptions) clean(ctx context.Context, w io.Writer) error {
	names, err := verify.Cleanup(ctx, o.Kubeconfig)
	if err != nil {
		return err
	}
	if o.out() == "json" {
		return json.NewEncoder(w).Encode(map[string][]string{"removed": names})
	}
	if len(names) == 0 {
		_, err = fmt.Fprintln(w, "nothing was left")
		return err
	}
	_, err = fmt.Fprintln(w, "removed", strings.Join(names, " "))
	return err
}

// printResults: a detail of several lines, one for each thing that is broken, stays in its column.
func printResults(w io.Writer, results []verify.Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "ROW\tCHECK\tRESULT\tTIME\tDETAIL")
	for _, r := range results {
		detail := strings.ReplaceAll(strings.TrimSpace(r.Detail), "\n", "\n\t\t\t\t")
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1fs\t%s\n", row(r.Row), r.Name, r.Status, r.Seconds, detail)
	}
	return t.Flush()
}
