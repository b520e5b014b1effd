package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubewright/kubewright/verify/probe"
)

// sender is one end of paths.
type sender struct {
	pod  *corev1.Pod
	node node
	ways probe.Ways
}

// podNetwork sends from every node's pod and from every node to the pods of all nodes.
func podNetwork(ctx context.Context, c *Cluster) (string, error) {
	var mu sync.Mutex
	var receivers []*corev1.Pod
	err := c.onEveryNode(func(p *pair) error {
		if pod, err := p.pod(); err == nil { // else the sender, which is the same pod, says it
			mu.Lock()
			defer mu.Unlock()
			receivers = append(receivers, pod)
		}
		return nil
	})
	slices.SortFunc(receivers, func(a, b *corev1.Pod) int { return strings.Compare(a.Spec.NodeName, b.Spec.NodeName) })
	var sum summary
	var found []finding
	errPaths := c.onEveryNode(func(p *pair) error {
		return onEach([]func() (*corev1.Pod, error){p.pod, p.host}, func(get func() (*corev1.Pod, error)) error {
			pod, err := get()
			if err != nil {
				return err
			}
			s := sender{pod: pod, node: p.node}
			wrong, err := c.paths(ctx, &s, receivers)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, wrong...)
			sum.add(s)
			return err
		})
	})
	if err := lines(err, errPaths, told(found, len(receivers))); err != nil {
		return "", err
	}
	return sum.String(), nil
}

// paths asks one sender about all receivers but itself.
func (c *Cluster) paths(ctx context.Context, s *sender, receivers []*corev1.Pod) (wrong []finding, err error) {
	// The transfers go round: each node's pod gets from the next node's.
	i := slices.IndexFunc(receivers, func(r *corev1.Pod) bool { return r.Spec.NodeName == s.node.name }) + 1
	others := slices.DeleteFunc(slices.Concat(receivers[i:], receivers[:i]), func(r *corev1.Pod) bool { return r.UID == s.pod.UID })
	question := probe.Paths{Rate: !s.pod.Spec.HostNetwork, Within: 10 * time.Second}
	for _, r := range others {
		question.To = append(question.To, probe.Peer{Name: r.Name, Address: r.Status.PodIP})
	}
	if s.ways, err = ask[probe.Ways](ctx, c, s.pod, "paths", question); err != nil {
		return nil, err
	}
	for i, r := range others {
		if f := s.judge(s.ways.Paths[i], r); f.what != "" {
			wrong = append(wrong, f)
		}
	}
	return wrong, nil
}

// finding is what is wrong with a way.
type finding struct {
	from, to         string // pod on w-1, node w-1; pod on w-2 (10.244.2.2)
	fromNode, toNode string
	silent           bool // nothing gets through
	what             string
}

// judge says what is wrong with the way to a receiver, if anything is.
func (s sender) judge(p probe.Path, r *corev1.Pod) finding {
	from, allowed := "pod on "+s.node.name, podIPs(s.pod)
	if s.pod.Spec.HostNetwork {
		from, allowed = "node "+s.node.name, s.ways.Addresses
	}
	f := finding{from: from, to: fmt.Sprintf("pod on %s (%s)", r.Spec.NodeName, r.Status.PodIP), fromNode: s.node.name, toNode: r.Spec.NodeName}
	switch {
	case p.Error != "":
		f.silent, f.what = true, p.Error
	case !slices.Contains(allowed, p.Source):
		f.what = fmt.Sprintf("the receiver saw source %s, which is not the sender's %s: there is NAT between them", p.Source, words(allowed))
	case p.State == probe.Lost:
		f.what = fmt.Sprintf("packets of %d bytes, the MTU of %s, are lost, small ones arrive: the MTU is too large for the path", p.Bytes, p.Device)
	case p.State == probe.Fragmented:
		f.what = fmt.Sprintf("packets of %d bytes, the MTU of %s, are fragmented: the MTU is larger than the path's", p.Bytes, p.Device)
	case p.State == probe.Silent:
		f.what = "UDP is not answered, TCP is: something on the way drops it"
	}
	return f
}

// told puts into one line each what has one cause: a node that is cut off from all others, and what one sender has to say of
// several receivers.
func told(found []finding, nodes int) error {
	var errs []error
	silent := map[string][]finding{}
	for _, f := range found {
		if f.silent && f.fromNode != f.toNode {
			silent[f.fromNode] = append(silent[f.fromNode], f)
			silent[f.toNode] = append(silent[f.toNode], f)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(silent)) {
		// From its pod and itself to each other node's pod, and back.
		all := slices.DeleteFunc(slices.Clone(silent[name]), func(f finding) bool { return !slices.Contains(found, f) })
		if len(all) < 4*(nodes-1) {
			continue
		}
		errs = append(errs, fmt.Errorf("nothing gets through between node %s and the others, either way (%d paths; %s: %s): the pod network's own traffic is blocked there (flannel's vxlan: UDP 8472), or its routes are gone",
			name, len(all), all[0].from+" -> "+all[0].to, all[0].what))
		found = slices.DeleteFunc(found, func(f finding) bool { return slices.Contains(all, f) })
	}
	var order []string
	to := map[string][]string{}
	for _, f := range found {
		key := f.from + " -> %s: " + strings.ReplaceAll(f.what, "%", "%%")
		if to[key] == nil {
			order = append(order, key)
		}
		to[key] = append(to[key], f.to)
	}
	for _, key := range order {
		errs = append(errs, fmt.Errorf(key, strings.Join(to[key], ", ")))
	}
	return lines(errs...)
}
