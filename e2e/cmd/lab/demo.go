package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/phases"
)

// demoCommand is `up`, and then a cluster on the hosts, by the commands that a person
// would type on each: init, and the join that it prints.
func demoCommand() *cobra.Command {
	cmd := upCommand(demo)
	cmd.Use, cmd.Short = "demo", "Make hosts and a real cluster on them, and leave it running"
	return cmd
}

func demo(ctx context.Context, l *lab.Lab, hosts []*lab.Host) error {
	if _, err := l.Kubewright(ctx); err != nil {
		return err
	}
	begin := time.Now()
	progress("\ncp-1# kubewright init --config cluster.yaml --bundle %s", lab.BundleDir)
	progress("w-1#  kubewright join %s:6443 --token ... --discovery-token-ca-cert-hash sha256:... --bundle %s   (and w-2, at the same time)\n", hosts[0].IP, lab.BundleDir)
	c, err := cluster.Kubewright(ctx, hosts[0], hosts[1:], cluster.Options{Document: cluster.Document(""), Args: cluster.Bundle, Log: show})
	if err != nil {
		return err
	}
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	progress("\nall nodes are Ready and DNS is available, %.1f s after init was typed\n", time.Since(begin).Seconds())
	for _, argv := range [][]string{{"get", "nodes", "-o", "wide"}, {"get", "pods", "-A", "-o", "wide"}} {
		progress("cp-1# kubectl %s", strings.Join(argv, " "))
		out, _, err := c.Kubectl(ctx, argv...)
		if err != nil {
			return err
		}
		fmt.Println(out)
	}
	return nil
}

// show prints what a person would see of an event.
func show(line []byte) {
	var e phases.Event
	if err := json.Unmarshal(line, &e); err != nil {
		progress("%s", line)
		return
	}
	switch e.State {
	case phases.Started, phases.Progress:
	case phases.Notice, phases.Failed:
		progress("%-5s %-26s %s: %s", e.Host, e.Phase, e.State, e.Message)
	default:
		progress("%-5s %-26s %-9s %5.1fs", e.Host, e.Phase, e.State, e.Seconds)
	}
}
