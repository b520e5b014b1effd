package providers

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Clusters are the names of those that are there, whoever made them.
func (k *Kind) Clusters(ctx context.Context) ([]string, error) {
	var names []string
	err := within(ctx, 10*time.Second, "list the clusters", func() (err error) {
		names, err = k.lib.List()
		return err
	})
	if err != nil { // and perhaps the library goes on
		return nil, err
	}
	return names, nil
}

// Delete removes the containers of a cluster, and takes it out of a kubeconfig, unless that is "none". It
// returns how many containers there were.
func (k *Kind) Delete(ctx context.Context, name, kubeconfig string) (removed int, err error) {
	limit := 6 * k.patience
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it was given up after %s: the engine has too much to do, or hangs: see its log (journalctl -u docker), restart it if it does not go on, and run this again", limit))
	defer cancel()
	have, err := k.Engine.Names(ctx, clusterLabel+"="+name)
	if err != nil {
		return 0, err
	}
	for tries := 0; len(have) > 0; tries++ { // a container that was being made when we looked comes after the others
		removed = max(removed, len(have))
		all := strings.Join(have, " ")
		switch {
		case tries < 3:
		case err != nil:
			return removed, err
		default:
			return removed, fmt.Errorf("the engine says that they were removed, and %s are still there: see its log, and try `%s rm --force --volumes %s`", all, k.Engine, all)
		}
		err = k.remove(ctx, have)
		left, listErr := k.Engine.Names(ctx, clusterLabel+"="+name)
		if ctx.Err() != nil {
			return removed, fmt.Errorf("the engine has not removed %s: %w", all, context.Cause(ctx))
		}
		if listErr != nil {
			return removed, listErr
		}
		if have = left; len(have) == 0 && err != nil && k.Engine == "podman" { // its volumes: docker's go with the containers
			return removed, err
		}
	}
	if kubeconfig == "none" {
		return removed, nil
	}
	k.editing.Lock()
	defer k.editing.Unlock()
	return removed, within(ctx, limit, "take the cluster out of the kubeconfig", func() error { return k.lib.Delete(name, kubeconfig) })
}

// remove has the engine remove containers, once: where it does so already, of a run that was ended, say, it is waited for.
func (k *Kind) remove(ctx context.Context, names []string) error {
	begin, all := time.Now(), strings.Join(names, " ")
	done := make(chan error, 1)
	go func() {
		for {
			err := k.Engine.Remove(ctx, names...)
			if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "is already in progress") {
				done <- err
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(k.patience / 10):
			}
		}
	}()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(k.patience):
			k.Say("the engine has not removed %s yet, since %s", all, time.Since(begin).Round(time.Second))
		}
	}
}
