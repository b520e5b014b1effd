package phases

import (
	"context"
	"sync"
)

// EtcdRecorder is an etcd whose members are Live, and in which changes are only listed. A
// member that would be added shows as not started once, then as started.
type EtcdRecorder struct {
	Live EtcdMembers

	mu    sync.Mutex
	seen  bool
	steps []string
}

// Steps are those so far, in order.
func (r *EtcdRecorder) Steps() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.steps...)
}

// look takes the members of a live etcd, once.
func (r *EtcdRecorder) look(ctx context.Context, live Etcd) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen {
		return nil
	}
	r.Live, err = live.Members(ctx)
	r.seen = err == nil
	return err
}

// recorded names members that there are not.
const recorded = "added"

func (r *EtcdRecorder) Members(context.Context) (EtcdMembers, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := EtcdMembers{r.Live.Cluster, append([]EtcdMember(nil), r.Live.Members...)}
	for i, m := range r.Live.Members {
		if !m.started() {
			r.Live.Members[i].Name = recorded
		}
	}
	return now, nil
}

func (r *EtcdRecorder) AddLearner(_ context.Context, peerURL string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, "add etcd learner "+peerURL)
	r.Live.Members = append(r.Live.Members, EtcdMember{ID: 1000 + uint64(len(r.steps)), PeerURL: peerURL, Learner: true})
	return nil
}

func (r *EtcdRecorder) Promote(_ context.Context, id uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, m := range r.Live.Members {
		if m.ID == id {
			r.Live.Members[i].Learner = false
			r.steps = append(r.steps, "promote etcd member "+m.PeerURL)
		}
	}
	return nil
}

func (r *EtcdRecorder) Remove(_ context.Context, id uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var rest []EtcdMember
	for _, m := range r.Live.Members {
		if m.ID == id {
			r.steps = append(r.steps, "remove etcd member "+m.PeerURL)
			continue
		}
		rest = append(rest, m)
	}
	r.Live.Members = rest
	return nil
}

func (r *EtcdRecorder) Serves(context.Context, string) error { return nil }
