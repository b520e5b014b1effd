package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

// acquires tells whether this host is made of something that no --bundle brings: it lacks something, or an earlier
// run has brought it. Else what is there has to do. The host is ready for it, as far as can be told now.
func (o *hostOptions) acquires(ctx context.Context, t *phases.Target, list []phases.Phase) (bool, error) {
	if t.Bundle != nil || !phases.Installs(list, o.skip) {
		return false, nil
	}
	if t.Lacks() || t.HostLock() != nil {
		return true, phases.Ready(ctx, list, t, o.skip)
	}
	if o.lock != "" {
		return false, misuse(errors.New("--lock: this host has a kubelet and a container runtime of its own, so that nothing is installed: leave it out, or pass --bundle"))
	}
	return false, nil
}

// acquire finds that something: what the host was made from before, if it still fits; else the lock of the
// cluster that it joins; else one that is made from the catalogue.
func (o *hostOptions) acquire(ctx context.Context, t *phases.Target, c *config.Cluster, ofCluster []byte) error {
	var l *bundle.Lock
	if had := t.HostLock(); had != nil && t.Fits(*had, c) {
		l, o.whose = had, "the lock of the run before"
	} else if ofCluster != nil {
		theirs, err := bundle.ParseLock(ofCluster)
		if err != nil {
			return fmt.Errorf("the lock of the cluster: %w", err)
		}
		if _, ok := theirs.Find("kubelet", t.Platform()); ok {
			l, o.whose = &theirs, "the lock of the cluster"
		} else {
			o.whose = "a lock that was made here, as that of the cluster has nothing for " + t.Platform()
		}
	}
	return phases.Acquire(ctx, t, func(ctx context.Context, moved bundle.Moved) (*bundle.Bundle, error) {
		if l != nil && (o.lock == "" || bundle.IsDigest(o.lock)) {
			return o.adopt(c.Spec.Artifacts, *l)
		}
		documents := phases.Documents(c)
		if t.Discover != nil { // one that joins applies none
			documents = nil
		}
		return o.resolve(ctx, c, phases.Images(c), documents, []string{t.Platform()}, moved)
	})
}

// tellLock says which lock this host is held to.
func (o *hostOptions) tellLock(t *phases.Target) {
	if t.Bundle == nil {
		return
	}
	whose := o.whose
	switch {
	case o.lock != "":
		whose = "the lock that --lock names"
	case o.bundle != "":
		whose = "the bundle's own lock"
	case whose == "":
		whose = "the lock that was made here"
	}
	t.Report(phases.Event{Time: time.Now(), Host: t.Node.Name, Phase: "artifacts", State: phases.Notice,
		Message: fmt.Sprintf("every byte is held to %s, %s", whose, t.Bundle.Lock().Digest())})
}
