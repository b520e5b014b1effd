package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/reach"
)

func newPreflight(out func() output) *cobra.Command {
	o := &fleetOptions{out: out}
	cmd := &cobra.Command{
		Use:   "preflight -f FILE",
		Short: "Look for what is in the way on hosts, and between them",
		Long: `Look for everything that would be in the way of "kubewright up", on all hosts and in the network
between them, and change nothing. From every host to every other, a small program that is on them
for that moment tries the ports that the cluster needs, over TCP and UDP, each direction by itself,
and packets as large as the network's, which nobody may fragment. Of more than 20 hosts, each tries
all control planes and five others.

"up" does the same before it touches anything, but for hosts that are nodes already.

The exit code is 0 when nothing is in the way, and 3 when something is.`,
		Example: `  kubewright preflight -f cluster.yaml
  kubewright preflight -f cluster.yaml -o json | jq '.network.ways[] | select(.reached | not)'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.within(cmd.Context(), o.runPreflight) },
	}
	o.reachFlags(cmd)
	o.changeFlags(cmd, phases.UpPhases())
	return cmd
}

// preflightResult is what preflight prints as JSON.
type preflightResult struct {
	Kind    string `json:"kind"`
	Cluster string `json:"cluster"`
	phases.Preflight
}

func (o *fleetOptions) runPreflight(ctx context.Context) error {
	v := newView(o.out())
	defer v.close()
	o.whole = true // where there is no bundle, nobody looks what could be downloaded
	f, u, err := o.begin(ctx, "preflight", v)
	if err != nil {
		return err
	}
	defer f.close()
	u.Acquires = u.Bundle == nil
	found, err := u.Preflight(ctx)
	v.close()
	if err = errors.Join(ctx.Err(), err); err != nil && ctx.Err() != nil {
		return err
	}
	if o.out() == "json" {
		v.result(preflightResult{"Preflight", f.cluster.Metadata.Name, found})
		return err
	}
	printWays(os.Stdout, found.Network)
	if err == nil {
		fmt.Println("\nnothing is in the way")
	}
	return err
}

// printWays shows each host with its ports, those together that the same hosts reach.
func printWays(w io.Writer, r reach.Result) {
	if len(r.Ways) == 0 {
		return
	}
	type row struct {
		host   string
		what   []string
		ok     []string
		missed []string
	}
	var rows []*row
	add := func(host, what string, ok, missed []string) {
		for _, r := range rows {
			if r.host == host && slices.Equal(r.ok, ok) && slices.Equal(r.missed, missed) {
				r.what = append(r.what, what)
				return
			}
		}
		rows = append(rows, &row{host, []string{what}, ok, missed})
	}
	type end struct{ host, what string }
	var order []end
	ok, missed := map[end][]string{}, map[end][]string{}
	note := func(host, what, from string, reached bool) {
		e := end{host, what}
		if ok[e] == nil && missed[e] == nil {
			order = append(order, e)
		}
		if reached {
			ok[e] = append(ok[e], from)
		} else {
			missed[e] = append(missed[e], from)
		}
	}
	for _, way := range r.Ways {
		note(way.To, way.Port.String(), way.From, way.Reached)
	}
	for _, p := range r.Packets {
		note(p.To, fmt.Sprintf("%d bytes", p.Wanted), p.From, p.Passed >= p.Wanted)
	}
	slices.SortStableFunc(order, func(a, b end) int { return strings.Compare(a.host, b.host) })
	for _, e := range order {
		add(e.host, e.what, ok[e], missed[e])
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "HOST\tPORTS, PACKETS\tREACHED FROM\tNOT FROM")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.host, strings.Join(r.what, " "), names(r.ok), names(r.missed))
	}
	t.Flush()
}

// names are some hosts, or how many.
func names(hosts []string) string {
	switch {
	case len(hosts) == 0:
		return "-"
	case len(hosts) > 5:
		return fmt.Sprintf("%d hosts", len(hosts))
	}
	return strings.Join(hosts, ",")
}
