package aws

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// busy is a file that is there while something is being made. Where it is left, a run did not come to its end; it holds something if that has failed, and
// nothing if it was cut short.
func (a *Cloud) busy() string { return filepath.Join(a.dir, "busy") }

// failed notes that a run ends by itself, though not well.
func (a *Cloud) failed() {
	if a.cutShort() {
		os.WriteFile(a.busy(), []byte("failed\n"), 0o600) // else the next run takes it for cut short
	}
}

func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Looks at what a run that was cut short may have made, until AWS is taken to tell of all of it.
const looks = 4

// catchUp gives AWS time to tell of what a run made that was cut short: what is not seen would be made again. A VPC, an internet gateway and an
// address can be made without a token alone. Gateways and tables are made without one, too: AWS knows a token longer than what was made for it, and would
// give us again what somebody has deleted.
func (a *Cloud) catchUp(ctx context.Context) error {
	why, err := os.ReadFile(a.busy())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	last := "was cut short"
	if len(why) > 0 {
		last = "has failed"
	}
	a.Say("the last run %s: looking at what it has made", last)
	for i := range looks {
		if i > 0 {
			if err := pause(ctx, a.Pause/2); err != nil {
				return err
			}
		}
		l := a.look(ctx)
		var g errgroup.Group
		g.Go(func() error { _, err := l.vpcs(); return err })
		g.Go(func() error { _, err := l.gateways(); return err })
		g.Go(func() error { _, err := l.addresses(); return err })
		g.Go(func() error { _, err := l.nats(); return err })
		g.Go(func() error { _, err := l.tables(); return err })
		g.Go(func() error { _, err := l.instances(); return err }) // whose tokens change with the image
		if err := g.Wait(); err != nil {
			return explain(err)
		}
	}
	return nil
}
