package verify

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/kubewright/kubewright/verify/probe"
)

// summary puts what senders saw into one line.
type summary struct {
	mu         sync.Mutex
	pods       int         // paths from pod to pod
	hosts      int         // paths from node to pod
	sizes      map[int]int // bytes of a whole packet -> paths
	ping, rate [2]float64  // least and most
}

func (s *summary) add(from sender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sizes == nil {
		s.sizes = map[int]int{}
	}
	if from.pod.Spec.HostNetwork {
		s.hosts += len(from.ways.Paths)
	} else {
		s.pods += len(from.ways.Paths)
	}
	for _, p := range from.ways.Paths {
		if p.State == probe.Whole {
			s.sizes[p.Bytes]++
		}
		if !from.pod.Spec.HostNetwork {
			widen(&s.ping, p.Ping)
			widen(&s.rate, p.Rate)
		}
	}
}

func widen(r *[2]float64, v float64) {
	if v == 0 {
		return
	}
	if r[0] == 0 || v < r[0] {
		r[0] = v
	}
	r[1] = max(r[1], v)
}

func (s *summary) String() string {
	if s.pods+s.hosts == 0 {
		return "there is one node, so no path"
	}
	parts := []string{fmt.Sprintf("%d paths pod -> pod, %d node -> pod, source addresses unchanged", s.pods, s.hosts)}
	for _, size := range slices.Sorted(maps.Keys(s.sizes)) {
		parts = append(parts, fmt.Sprintf("full packets of %d bytes arrive unfragmented (%d paths)", size, s.sizes[size]))
	}
	if s.ping[1] > 0 {
		parts = append(parts, fmt.Sprintf("datagrams answered after %.2f-%.2f ms", s.ping[0], s.ping[1]))
	}
	if s.rate[1] > 0 {
		parts = append(parts, fmt.Sprintf("TCP %.0f-%.0f MB/s while other checks ran", s.rate[0], s.rate[1]))
	}
	return strings.Join(parts, "; ")
}
