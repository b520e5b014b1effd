package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/providers/aws"
)

// awsPlan is what would be made, changed and deleted around the hosts.
type awsPlan struct {
	of      bool // the document's provider is aws
	where   string
	notes   []string // what up would not do
	changes []aws.Change
	makes   bool     // more than ending machines that are too many
	hosts   []string // whose own plan can be told
}

// planAWS tells what up would do before it comes to the hosts. With --only there is nothing of that.
func (o *fleetOptions) planAWS(ctx context.Context) (p awsPlan, err error) {
	c, err := o.read()
	if err != nil || c.Spec.Provider.Name != "aws" {
		return awsPlan{}, nil // of which begin tells
	}
	p.of = true
	if err := o.aws.open(ctx, c); err != nil {
		return p, misuse(err)
	}
	if len(o.only) == 0 {
		if p.changes, err = o.aws.cloud.Plan(ctx); err != nil {
			return p, misuse(ofCloud(err))
		}
	}
	err = o.aws.cloud.Hosts(ctx)
	p.makes = slices.ContainsFunc(p.changes, func(c aws.Change) bool {
		return !slices.ContainsFunc(o.aws.cloud.Surplus(), func(n config.Node) bool { return c.Action == "delete" && strings.HasSuffix(n.ProviderID, "/"+c.Detail) })
	})
	p.where, p.notes = o.aws.cloud.Where(), o.aws.cloud.Notes()
	for _, n := range append(c.Spec.Hosts, o.aws.cloud.Surplus()...) {
		p.hosts = append(p.hosts, n.Name)
	}
	o.aws.cloud = nil // the document is read again
	return p, err
}

func printInfrastructure(w io.Writer, where string, changes []aws.Change, notes []string) {
	fmt.Fprintln(w, "## AWS, "+where)
	fmt.Fprintln(w)
	sign := map[string]string{"create": "+", "change": "~", "delete": "-"}
	for _, c := range changes {
		fmt.Fprintf(w, "%s %s\n", sign[c.Action], strings.TrimPrefix(c.String(), c.Action+" "))
	}
	if len(changes) == 0 {
		fmt.Fprintln(w, "nothing")
	}
	for _, note := range notes {
		fmt.Fprintln(w, "! "+note)
	}
	fmt.Fprintln(w)
}

// infrastructureSummary is the last line of a plan.
func infrastructureSummary(changes []aws.Change) string {
	n := map[string]int{}
	for _, c := range changes {
		n[c.Action]++
	}
	return fmt.Sprintf("In AWS: %d to make, %d to change, %d to delete.", n["create"], n["change"], n["delete"])
}

var errPlanAWS = errors.New("machines, or what is around them, are to change: do that first, with `kubewright up --only infrastructure`, and then make a plan of what their hosts get")
