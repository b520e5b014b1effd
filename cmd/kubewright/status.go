package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/phases"
)

// notWell is the exit code of status where something is wrong.
type notWellError struct{ hosts []string }

func (e *notWellError) Error() string {
	return fmt.Sprintf("not as it should be: %s; see above, and `kubewright plan` for what up would mend", strings.Join(e.hosts, ", "))
}

func newStatus(out func() output) *cobra.Command {
	o := &fleetOptions{out: out}
	var format string
	drift := true
	cmd := &cobra.Command{
		Use:   "status -f FILE",
		Short: "Show hosts and nodes in one table, over SSH",
		Long: `Show hosts and nodes in one table: whether they are reached, their roles and versions, kubelet,
runtime, member of etcd, the certificate that expires first, and how much has drifted from what
"kubewright up" would make. Nothing is changed.

The exit code is 0 when all is well, 1 when something is not: a host is not reached, a node is not
ready or not in the document, a member of etcd is missing, something has drifted, or a certificate
expires within 30 days.`,
		Example: `  kubewright status -f cluster.yaml
  kubewright status -f cluster.yaml -o wide
  kubewright status -f cluster.yaml -o json | jq '.hosts[] | select(.ready != "True")'`,
		Args: fileNotArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.within(cmd.Context(), func(ctx context.Context) error { return o.runStatus(ctx, format, drift) })
		},
	}
	o.reachFlags(cmd)
	o.kind.nameFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&format, "output", "o", "text", "what to print: text, wide, json or yaml")
	f.BoolVar(&drift, "drift", true, "look for what has drifted, which takes longest")
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "wide", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// clusterStatus is what status prints as JSON.
type clusterStatus struct {
	Kind    string              `json:"kind"`
	Cluster string              `json:"cluster"`
	Answers bool                `json:"answers"` // its API server
	Error   string              `json:"error,omitempty"`
	Expires time.Time           `json:"expires,omitzero"` // its containers, by --ttl
	Hosts   []phases.HostStatus `json:"hosts"`
}

func (o *fleetOptions) runStatus(ctx context.Context, format string, drift bool) error {
	switch format {
	case "text", "wide", "json", "yaml":
	default:
		return misuse(fmt.Errorf("--output %q: write text, wide, json or yaml", format))
	}
	c, err := o.document(ctx)
	if err != nil {
		return misuse(err)
	}
	v := newView(o.out())
	defer v.close()
	v.among(c.Spec.Hosts)
	v.hush(true)
	o.tolerant = true
	f, err := o.connect(ctx, c, "")
	if err != nil {
		return err
	}
	defer f.close()
	o.whole = true
	u, err := o.up(ctx, f, v)
	if u == nil {
		return err
	}
	s := clusterStatus{Kind: "Status", Cluster: c.Metadata.Name}
	s.Answers = err == nil && u.Answers(ctx)
	if err != nil {
		s.Error = err.Error()
	} else if !s.Answers {
		s.Error = "no API server answers"
	}
	if c.Spec.Provider.Name == "kind" {
		s.Expires = o.kind.lib.Expires(ctx, c)
	}
	s.Hosts = u.Status(ctx, s.Answers, drift)
	v.close()
	switch format {
	case "json":
		v.result(s)
	case "yaml":
		b, err := yaml.Marshal(s)
		if err != nil {
			return err
		}
		os.Stdout.Write(b)
	default:
		printStatus(os.Stdout, s, format == "wide")
	}
	var bad []string
	for _, h := range s.Hosts {
		if !h.Well() {
			bad = append(bad, h.Host)
		}
	}
	if len(bad) > 0 || !s.Answers {
		return &notWellError{bad}
	}
	return nil
}

func printStatus(w io.Writer, s clusterStatus, wide bool) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	head := "HOST\tROLES\tREACHED\tREADY\tVERSION\tKUBELET\tRUNTIME\tETCD\tDB\tEXPIRES\tDRIFT"
	if wide {
		head += "\tADDRESS\tMEMBER\tCERTIFICATE\tOS\tKERNEL\tARCH"
	}
	fmt.Fprintln(t, head)
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	for _, h := range s.Hosts {
		size, expires, drift, reached := "", "", "", "no"
		if h.Reachable {
			reached = "yes"
		}
		if h.EtcdBytes > 0 {
			size = fmt.Sprintf("%.0f MiB", float64(h.EtcdBytes)/(1<<20))
		}
		if h.Expires != nil {
			expires = fmt.Sprintf("%d d", int(time.Until(*h.Expires).Hours()/24))
		}
		if h.Drift != nil {
			drift = fmt.Sprint(*h.Drift)
		}
		row := []string{h.Host, strings.Join(h.Roles, ","), reached, h.Ready, h.Version, h.Kubelet, strings.Replace(h.Runtime, "://", " ", 1), h.Etcd, size, expires, drift}
		if wide {
			row = append(row, h.Address, h.EtcdMember, h.Certificate, h.OS, h.Kernel, h.Machine)
		}
		for i := range row {
			row[i] = dash(row[i])
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush()
	for _, h := range s.Hosts {
		switch {
		case !h.Listed:
			fmt.Fprintf(w, "\n%s is a node of the cluster, and not in the document: list it, or take it out with `kubewright remove`\n", h.Host)
		case h.Error != "":
			fmt.Fprintf(w, "\n%s: %s\n", h.Host, strings.TrimPrefix(h.Error, h.Host+": "))
		case h.Ready != "True" && h.Reason != "":
			fmt.Fprintf(w, "\n%s is not ready: %s\n", h.Host, h.Reason)
		}
	}
	if !s.Expires.IsZero() {
		fmt.Fprintf(w, "\n%s\n", ends(s.Expires))
	}
	if s.Error != "" {
		fmt.Fprintf(w, "\nthe cluster: %s\n", s.Error)
	}
}
