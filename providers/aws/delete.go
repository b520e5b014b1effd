package aws

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// thing is something of the cluster that is there, and how it ends.
type thing struct {
	kind, id, name string
	end            func(ctx context.Context) error
	gone           bool // it ends by itself: it is waited for alone
}

func (t thing) String() string {
	switch {
	case t.name == "":
		return t.kind + " " + t.id
	case strings.HasPrefix(t.id, "arn:"):
		return t.kind + " " + t.name
	}
	return fmt.Sprintf("%s %s (%s)", t.kind, t.name, t.id)
}

// Doomed lists what Delete would delete: all that carries the cluster's tags, that of its Services and volumes among it.
func (a *Cloud) Doomed(ctx context.Context) ([]Change, error) {
	all, err := a.things(ctx, nil)
	if err != nil {
		return nil, err
	}
	return listed(all), nil
}

// Delete deletes all of it, and the cluster's key here, and tells how many things those were. What something else
// still uses is tried again, until there is nothing left or nothing has gone for as long as Patience; then the error lists what is left, and why.
func (a *Cloud) Delete(ctx context.Context) (deleted int, err error) {
	enough := 2 // not every look may show at once what was made last
	if a.cutShort() {
		enough = looks
	}
	deleted, err = a.endAll(ctx, enough, func(of map[string]bool) ([][]thing, error) { return a.things(ctx, of) })
	if err != nil {
		return deleted, err
	}
	return deleted, a.forgetKey()
}

// endAll ends things, of which look gives all or those of some kinds, until that many looks have found none.
func (a *Cloud) endAll(ctx context.Context, enough int, look func(of map[string]bool) ([][]thing, error)) (deleted int, err error) {
	began, wait := time.Now(), a.Pause/20
	is, over := a.waits.Begin("the end of what was made")
	defer over()
	said, empty, blocked := map[string]bool{}, 0, blockage{is: is}
	var of, later map[string]bool // what is waited for, and what comes after it; nil: all is looked at
	for {
		levels, err := look(of)
		if err != nil {
			return deleted, err
		}
		if len(slices.Concat(levels...)) == 0 {
			if of != nil {
				of, later = later, nil
				continue
			}
			if empty++; empty == enough {
				return deleted, nil
			}
			if err := pause(ctx, wait); err != nil {
				return deleted, err
			}
			continue
		}
		empty = 0
		left := &left{why: map[string]error{}}
		n, narrow := 0, of != nil
		of, later = nil, nil
		for i, level := range levels {
			ended := a.end(ctx, level, left, said)
			n += ended
			going := func(t thing) bool { return t.gone || ended > 0 && t.slow() }
			if left.fatal != nil || ended > 0 && len(left.why) > 0 || slices.ContainsFunc(level, going) {
				of, later = kindsOf(levels[:i+1]), kindsOf(levels[i+1:])
				break // what ends is waited for before what it stands on is tried
			}
		}
		deleted += n
		if left.fatal != nil {
			return deleted, left.fatal
		}
		if err := ctx.Err(); err != nil {
			return deleted, context.Cause(ctx)
		}
		if n > 0 {
			began, wait = time.Now(), a.Pause/20
		} else if time.Since(began) > a.Patience {
			if !narrow {
				return deleted, a.stays(ctx, levels, left)
			}
			of = nil // a last look at everything
		}
		a.tellLeft(ctx, levels, left, &blocked, began)
		if err := pause(ctx, wait); err != nil {
			return deleted, err
		}
		wait = min(wait*3/2, a.Pause)
	}
}

// slow tells of what does not end at once.
func (t thing) slow() bool {
	return slices.Contains([]string{"load-balancer", "instance", "nat-gateway", "volume"}, t.kind)
}

// kindsOf are those of all things of some levels; nil: there are none.
func kindsOf(levels [][]thing) (kinds map[string]bool) {
	for _, t := range slices.Concat(levels...) {
		if kinds == nil {
			kinds = map[string]bool{}
		}
		kinds[t.kind] = true
		if t.kind == "role" {
			kinds["instance-profile"] = true // they are asked for together
		}
	}
	return kinds
}

// left is what could not be deleted in a round, and why.
type left struct {
	mu    sync.Mutex
	why   map[string]error
	fatal error
}

// end ends the things of a level at the same time, and tells how many it has.
func (a *Cloud) end(ctx context.Context, level []thing, l *left, said map[string]bool) (ended int) {
	var g errgroup.Group
	g.SetLimit(20)
	for _, t := range level {
		if t.gone {
			continue
		}
		g.Go(func() error {
			err := t.end(ctx)
			l.mu.Lock()
			defer l.mu.Unlock()
			switch {
			case err == nil, missing(err):
				if !said[t.String()] {
					said[t.String()] = true
					a.Say("delete %s", t)
					ended++
				}
			case inUse(err):
				l.why[t.String()] = err
			case l.fatal == nil:
				l.fatal = fmt.Errorf("AWS: delete %s: %w", t, explain(err))
			}
			return nil
		})
	}
	g.Wait()
	return ended
}

// inUse are errors that pass when something else is gone.
func inUse(err error) bool {
	switch codeOf(err) {
	case "DependencyViolation", "InvalidGroup.InUse", "VolumeInUse", "InvalidIPAddress.InUse", "ResourceInUse", "OperationNotPermitted", "DeleteConflict", "InvalidNetworkInterface.InUse", "InvalidParameterValue.InUse", "IncorrectState", "InvalidAddress.Locked", "CannotDelete":
		return true
	case "AuthFailure": // of an address: a NAT gateway has it yet
		return strings.Contains(messageOf(err), "You do not have permission to access the specified resource")
	}
	return false
}

// errStays is of what something else still uses.
var errStays = errors.New("remove what is not the cluster's by hand, and run this again")

// stays says what could not be deleted, why, and what else is there.
func (a *Cloud) stays(ctx context.Context, levels [][]thing, l *left) error {
	var all []string
	for _, t := range slices.Concat(levels...) {
		why := "it does not end"
		if err := l.why[t.String()]; err != nil {
			why = messageOf(err)
		}
		all = append(all, fmt.Sprintf("%s: %s", t, why))
	}
	err := fmt.Errorf("AWS: this is left, as nothing has gone for %s:\n  %s\n%w", a.Patience, strings.Join(all, "\n  "), errStays)
	if users, others := a.users(ctx, levels); len(users)+len(others) > 0 {
		err = fmt.Errorf("%w\nin the VPC, and not of the cluster: %s", err, strings.Join(append(others, users...), ", "))
	}
	return err
}

// forgetKey removes the key that was made for the cluster, and the keys of its machines.
func (a *Cloud) forgetKey() error {
	err := errors.Join(removeFile(a.knownHosts()), removeFile(filepath.Join(a.dir, "machines")), removeFile(a.sshConfigFile()), removeFile(a.busy()))
	if a.aws.SSH.KeyName == "" {
		err = errors.Join(err, removeFile(a.keyFile()))
	}
	a.tidy()
	return err
}
