package bench

import (
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

const kindName = "bench"

// inKind gives somebody a folder, and removes their cluster.
func inKind(ctx context.Context, l *lab.Lab, run func(k *cluster.Kind) error) (err error) {
	dir, err := os.MkdirTemp("", "kubewright-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	k, err := cluster.NewKind(ctx, l, dir)
	if err != nil {
		return err
	}
	if err := k.Remove(ctx, kindName); err != nil { // of a run that was killed
		return err
	}
	defer func() { err = errors.Join(err, k.Remove(context.WithoutCancel(ctx), kindName)) }()
	return run(k)
}

// kindUsable is the time until a cluster of containers can be used, from nothing.
func kindUsable(workers int, ours bool) func(context.Context, *lab.Lab) (float64, error) {
	return func(ctx context.Context, l *lab.Lab) (seconds float64, err error) {
		err = inKind(ctx, l, func(k *cluster.Kind) error {
			seconds, err = timed(func() error {
				return usableOnce(ctx, func(ctx context.Context) ([]*lab.Host, error) { return k.Hosts(ctx, kindName, workers) }, func(ctx context.Context) error {
					if ours {
						_, _, err := k.Up(ctx, kindName, "--workers", strconv.Itoa(workers))
						return err
					}
					return k.Create(ctx, kindName, workers)
				})
			})
			return err
		})
		return seconds, err
	}
}

// kindDown is the time that the removal of a 1+2 cluster of ours takes.
func kindDown(ours bool) func(context.Context, *lab.Lab) (float64, error) {
	return func(ctx context.Context, l *lab.Lab) (seconds float64, err error) {
		err = inKind(ctx, l, func(k *cluster.Kind) error {
			if _, _, err := k.Up(ctx, kindName, "--workers", "2"); err != nil {
				return err
			}
			seconds, err = timed(func() error {
				if ours {
					_, _, err := k.Run(ctx, "down", "--provider", "kind", "--name", kindName)
					return err
				}
				return k.Remove(ctx, kindName)
			})
			return err
		})
		return seconds, err
	}
}

// kindMemory is the most memory that up takes.
func kindMemory(ctx context.Context, l *lab.Lab) (megabytes float64, err error) {
	maxrss, err := l.Tool(ctx, "e2e/cmd/maxrss")
	if err != nil {
		return 0, err
	}
	err = inKind(ctx, l, func(k *cluster.Kind) error {
		binary := k.Binary
		k.Binary = maxrss
		out, _, err := k.Run(ctx, binary, "up", "--provider", "kind", "--name", kindName, "--image", k.Image, "--workers", "2")
		if err != nil {
			return err
		}
		megabytes, err = maxRSS(out)
		return err
	})
	return megabytes, err
}
