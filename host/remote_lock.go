package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// codeLocked is how the agent's exit code says that somebody else has the lease.
const codeLocked = 75

// Lock has a shell of its own on the machine keep the lease that [Local] takes there, by the same
// rules. It ends all of this run there, and gives the lease back, when the connection ends.
func (r *Remote) Lock(ctx context.Context, command string) (context.Context, func(), error) {
	return r.lock(ctx, lockPath, command)
}

func (r *Remote) lock(ctx context.Context, path, command string) (context.Context, func(), error) {
	ask := []string{"lock", path}
	for _, v := range []any{r.run, command, time.Now()} {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, nil, err
		}
		ask = append(ask, string(b))
	}
	keeper, err := startAgent(context.WithoutCancel(ctx), r.transport, r.shell, r.run)
	if err != nil {
		return nil, nil, err
	}
	r.trips.Add(1)
	out, code, err := keeper.ask(ctx, ask...)
	switch {
	case err == nil && code == codeLocked:
		var lease Lease
		if err = json.Unmarshal(out.Stdout, &lease); err == nil {
			err = &LockedError{lease}
		}
	case err == nil && code != 0:
		err = fmt.Errorf("lock %s: %w", path, words(out))
	}
	if err != nil {
		keeper.pipe.Close()
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(leaseRenewed)
		defer tick.Stop()
		r.keep(ctx, keeper, path, tick.C, cancel)
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), leaseRenewed)
		defer stop()
		keeper.ask(ctx, "unlock") // best effort: the end of the connection does it too
		keeper.pipe.Close()
	}, nil
}

// keep renews the lease until ctx ends, and ends it where somebody else has taken over, or where
// the machine has not answered for so long that somebody may.
func (r *Remote) keep(ctx context.Context, keeper *agent, path string, tick <-chan time.Time, cancel context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		patient, stop := context.WithTimeout(context.WithoutCancel(ctx), leaseStale-leaseRenewed)
		out, code, err := keeper.ask(patient, "renew")
		stop()
		switch {
		case err != nil:
			cancel(r.lost(ctx, path, err))
			return
		case code != 0:
			cancel(words(out))
			return
		}
	}
}

// lost tells why the keeper has ended: who takes a machine over ends all of the run before.
func (r *Remote) lost(ctx context.Context, path string, err error) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), leaseRenewed)
	defer stop()
	var lease Lease
	if b, e := r.ReadFile(ctx, path); e == nil && json.Unmarshal(bytes.TrimSpace(b), &lease) == nil && lease.Run != r.run {
		return errTaken
	}
	return fmt.Errorf("this host is no longer kept for this run: %w", err)
}

// ask is one operation, by who has this shell alone.
func (a *agent) ask(ctx context.Context, words ...string) (Output, int, error) {
	stop := context.AfterFunc(ctx, func() { a.pipe.Close() })
	defer stop()
	if _, err := a.pipe.In.Write(frame([][]string{words})); err != nil {
		return Output{}, 0, a.ended(err)
	}
	out, code, err := a.next()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return out, code, err
}
