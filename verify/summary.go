package verify

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// summary puts what senders saw into one line.
type summary struct {
	mu         sync.Mutex
	pods       int            // paths from pod to pod
	hosts      int            // paths from node to pod
	sizes      map[int]int    // bytes of a whole packet -> paths
	notShown   map[string]int // why no packet size was shown -> paths
	ping, rate [2]float64     // least and most
}

func (s *summary) add(from sender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sizes == nil {
		s.sizes, s.notShown = map[int]int{}, map[string]int{}
	}
	if from.pod.Spec.HostNetwork {
		s.hosts += len(from.paths)
	} else {
		s.pods += len(from.paths)
	}
	for _, p := range from.paths {
		switch p.state {
		case "whole":
			s.sizes[p.bytes]++
		case "silent":
			s.notShown["receivers answer no ICMP"]++
		default:
			s.notShown["IPv6, or path MTU discovery is off"]++
		}
		if !from.pod.Spec.HostNetwork {
			widen(&s.ping, p.ping)
			widen(&s.rate, p.rate)
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
	for _, why := range slices.Sorted(maps.Keys(s.notShown)) {
		parts = append(parts, fmt.Sprintf("full packets not shown on %d paths: %s", s.notShown[why], why))
	}
	if s.ping[1] > 0 {
		parts = append(parts, fmt.Sprintf("ping %.2f-%.2f ms", s.ping[0], s.ping[1]))
	}
	if s.rate[1] > 0 {
		parts = append(parts, fmt.Sprintf("TCP %.0f-%.0f MB/s while other checks ran", s.rate[0], s.rate[1]))
	}
	return strings.Join(parts, "; ")
}
