package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kubewright/kubewright/e2e/fleet"
	"github.com/kubewright/kubewright/e2e/lab"
)

// fanout is what preparing ever more simulated hosts costs the operator. Its two figures share the runs.
type fanout struct {
	detail func(format string, args ...any)
	memory []float64 // MB, of the largest fleet in each run, until it is asked for
}

var fleets = []int{10, 100, 1000}

// seconds of the largest fleet. It is an error if time or memory grow faster than the hosts.
func (f *fanout) seconds(ctx context.Context, l *lab.Lab) (float64, error) {
	tool, err := l.Kubewright(ctx)
	if err != nil {
		return 0, err
	}
	simulator, err := l.Tool(ctx, "e2e/cmd/fleet")
	if err != nil {
		return 0, err
	}
	var last fleet.Result
	for i, hosts := range fleets {
		r, err := prepareFleet(ctx, simulator, tool, hosts)
		if err != nil {
			return 0, err
		}
		f.detail("fanout %d hosts: %.1f s, of which %.1f s CPU, %.0f MB", hosts, r.Seconds, r.CPU, r.Memory)
		if more := float64(hosts) / float64(fleets[max(0, i-1)]); i > 0 && (r.Seconds > more*last.Seconds || r.Memory > more*last.Memory) {
			return 0, fmt.Errorf("%.0f times the hosts took %.1f s after %.1f s, and %.0f MB after %.0f MB", more, r.Seconds, last.Seconds, r.Memory, last.Memory)
		}
		last = r
	}
	f.memory = append(f.memory, last.Memory)
	return last.Seconds, nil
}

// megabytes of the next run that seconds has made.
func (f *fanout) megabytes(ctx context.Context, l *lab.Lab) (float64, error) {
	if len(f.memory) == 0 {
		if _, err := f.seconds(ctx, l); err != nil {
			return 0, err
		}
	}
	mb := f.memory[0]
	f.memory = f.memory[1:]
	return mb, nil
}

func prepareFleet(ctx context.Context, simulator, tool string, hosts int) (r fleet.Result, err error) {
	dir, err := os.MkdirTemp("", "kubewright-fleet-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	p, err := fleet.Spawn(ctx, simulator, dir, hosts)
	if err != nil {
		return r, err
	}
	defer p.Close()
	return p.Prepare(ctx, filepath.Clean(tool))
}
