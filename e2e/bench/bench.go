// Package bench measures kubewright beside its peers, in one run on one machine. In goes
// a lab; out comes a line for each figure:
//
//	figure init ours=6.1s peer=7.2s ratio=0.85 limit=0.85 ok
//
// Ours and the peer take turns, so that a machine that grows slower does so for both. The
// values are medians; the ratio is that of the medians.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// figure is one comparison, or one value with a limit.
type figure struct {
	name, what string
	limit      float64 // of ours/peer; without a peer, of ours
	unit       string  // "s", "MB"...
	ours, peer func(context.Context, *lab.Lab) (float64, error)
}

// Figures in the order in which they run. Later ones join the list. detail hears the values that one is made of.
func figures(detail func(format string, args ...any)) []figure {
	bundleMemory := func(ctx context.Context, l *lab.Lab) (float64, error) { return BundleMemory(ctx, l, 0, detail) }
	fan := &fanout{detail: detail}
	return []figure{
		{"init", "init on a prepared host, from exec to exit; peer: kubeadm init", 0.85, "s", kubewrightInit, kubeadmInit},
		{"cluster", "1+2 on prepared hosts, until all nodes are Ready and DNS answers from a pod on each worker; peer: kubeadm init, apply flannel, both joins at once", 0.40, "s", kubewrightCluster, kubeadmCluster},
		{"noop", "init where all is done, with a bundle", 1, "s", noop, nil},
		{"ssh", "1+2 over SSH from bare hosts, the bundle on the operator's side, until all nodes are Ready and DNS answers from a pod on each worker; peer: peer.sh", 0.60, "s", kubewrightSSH, kubeadmSSH},
		{"noop-up", "up on a 1+2 cluster where all is done", 2, "s", noopUp, nil},
		{"verify", "all checks on a 1+2 cluster at rest", 45, "s", verifySeconds, nil},
		{"kind", "1+2 containers, from nothing, until all nodes are Ready and DNS answers from a pod on each worker; peer: kind create cluster with the same image and flannel", 0.33, "s", kindUsable(2, true), kindUsable(2, false)},
		{"kind-single", "the same with a control plane alone", 0.45, "s", kindUsable(0, true), kindUsable(0, false)},
		{"kind-down", "its removal, of 1+2; peer: kind delete cluster", 1, "s", kindDown(true), kindDown(false)},
		{"kind-memory", "peak memory of up --provider kind, 1+2", 150, "MB", kindMemory, nil},
		{"aws", "up --only infrastructure of 3+10 machines, against a stand-in of AWS with 80 ms a call; peer: the longest chain of calls of which each needs the one before", 1.5, "s", awsUp, awsPath},
		{"aws-noop", "calls of the same where all is done", 12, " calls", awsCalls, nil},
		{"fanout", "up --prepare on 1,000 simulated hosts behind lines of 50 ms, on artifacts of 64 KiB", 60, "s", fan.seconds, nil},
		{"fanout-memory", "the operator's peak memory in those runs", 500, "MB", fan.megabytes, nil},
		{"import", "a control plane's images into a containerd that runs and has none, all of them unpacked at the end; peer: ctr images import of the same images in one tar", 0.6, "s", kubewrightImport, ctrImport},
		{"memory", "peak memory of init with a bundle on a bare host", 120, "MB", initMemory, nil},
		{"bundle", "peak memory of the largest of bundle create, from a mirror with nothing in the cache, bundle verify and the unpacking of that file", BundleLimit, "MB", bundleMemory, nil},
		{"binary", "size of the stripped binary", 70, "MB", binarySize, nil},
	}
}

// Names of all figures.
func Names() []string {
	var names []string
	for _, f := range figures(nil) {
		names = append(names, f.name)
	}
	return names
}

// Options of a run.
type Options struct {
	Only   []string // names; empty: all
	Runs   int      // of each side
	Out    io.Writer
	Detail func(format string, args ...any) // hears each single value
}

// ErrShort is that some figure missed its limit.
var ErrShort = errors.New("short of a limit")

// Run measures, and prints a line for each figure.
func Run(ctx context.Context, l *lab.Lab, o Options) error {
	for _, name := range o.Only {
		if !slices.Contains(Names(), name) {
			return fmt.Errorf("there is no figure %q: the figures are %s", name, strings.Join(Names(), ", "))
		}
	}
	short := false
	for _, f := range figures(o.Detail) {
		if len(o.Only) > 0 && !slices.Contains(o.Only, f.name) {
			continue
		}
		ok, line, err := f.measure(ctx, l, o)
		if err != nil {
			return fmt.Errorf("figure %s: %w", f.name, err)
		}
		short = short || !ok
		fmt.Fprintln(o.Out, line)
	}
	if short {
		return ErrShort
	}
	return nil
}

func (f figure) measure(ctx context.Context, l *lab.Lab, o Options) (ok bool, line string, err error) {
	var ours, peer []float64
	take := func(side string, values *[]float64, run func(context.Context, *lab.Lab) (float64, error)) error {
		v, err := run(ctx, l)
		if err != nil {
			return fmt.Errorf("%s: %w", side, err)
		}
		o.Detail("%s %s %.2f%s", f.name, side, v, f.unit)
		*values = append(*values, v)
		return nil
	}
	runs := o.Runs
	if f.name == "binary" {
		runs = 1 // it has one size
	}
	for range runs {
		if err := take("ours", &ours, f.ours); err != nil {
			return false, "", err
		}
		if f.peer == nil {
			continue
		}
		if err := take("peer", &peer, f.peer); err != nil {
			return false, "", err
		}
	}
	verdict := map[bool]string{true: "ok", false: "short"}
	if f.peer == nil && f.unit == "s" {
		v := median(ours)
		return v < f.limit, fmt.Sprintf("figure %s ours=%.2f%s limit=%.2f%s %s", f.name, v, f.unit, f.limit, f.unit, verdict[v < f.limit]), nil
	}
	if f.peer == nil {
		v := slices.Max(ours) // a limit on memory holds in every run
		return v <= f.limit, fmt.Sprintf("figure %s ours=%.0f%s limit=%.0f%s %s", f.name, v, f.unit, f.limit, f.unit, verdict[v <= f.limit]), nil
	}
	a, b := median(ours), median(peer)
	ok = a <= f.limit*b
	return ok, fmt.Sprintf("figure %s ours=%.1f%s peer=%.1f%s ratio=%.2f limit=%.2f %s", f.name, a, f.unit, b, f.unit, a/b, f.limit, verdict[ok]), nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// fresh makes prepared hosts, runs, and removes them.
func fresh(ctx context.Context, l *lab.Lab, names []string, run func(hosts []*lab.Host) error) (err error) {
	image, err := cluster.Prepared(ctx, l)
	if err != nil {
		return err
	}
	hosts, err := l.HostsFrom(ctx, lab.HostOptions{Image: image}, names...)
	if err != nil {
		return err
	}
	defer func() {
		for _, h := range hosts {
			err = errors.Join(err, h.Remove(context.WithoutCancel(ctx)))
		}
	}()
	// Booted is not yet at rest: both sides begin when the runtime answers.
	for _, h := range hosts {
		if _, _, err := h.Exec(ctx, nil, "crictl", "version"); err != nil {
			return err
		}
	}
	return run(hosts)
}

func timed(run func() error) (float64, error) {
	begin := time.Now()
	err := run()
	return time.Since(begin).Seconds(), err
}
