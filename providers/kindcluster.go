package providers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

// KindImage is that of nodes where nobody names one: kind's own of the newest Kubernetes that kubewright was
// tried with, from the notes of kind v0.33.
const KindImage = "kindest/node:" + kindImageVersion + "@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"

const kindImageVersion = "v1.36.4"

// clusterName is what kind takes, with room for -control-plane in a host's name.
var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,48}[a-z0-9])?$`)

// KindHosts lists the containers of a cluster as its hosts, under the names that kind gives them: it takes
// control planes but the first for workers, as it would put a load balancer before several, whose
// image is not ours to bring.
func KindHosts(c *config.Cluster) error {
	p := &c.Spec.Provider.Kind
	if n := c.Metadata.Name; !clusterName.MatchString(n) {
		return fmt.Errorf("the name %q: a cluster of containers is named with up to 50 of a-z, 0-9, - and dots", n)
	}
	if len(c.Spec.Hosts) > 0 {
		return errors.New("spec.hosts: the hosts of provider kind follow from spec.provider.kind: leave them out")
	}
	if p.ControlPlanes < 0 || p.Workers < 0 {
		return errors.New("spec.provider.kind: controlPlanes and workers: fewer than none are not made")
	}
	if len(p.Nodes) > 0 && p.ControlPlanes+p.Workers > 0 {
		return errors.New("spec.provider.kind: nodes one by one, and how many control planes or workers there are: write, or give as flags, one of them")
	}
	if len(p.Nodes) == 0 {
		planes := max(p.ControlPlanes, 1)
		for i := range planes + p.Workers {
			role := config.ControlPlaneRole
			if i >= planes {
				role = config.WorkerRole
			}
			p.Nodes = append(p.Nodes, config.KindNode{Role: role})
		}
		p.ControlPlanes, p.Workers = 0, 0
	}
	alone := !slices.ContainsFunc(p.Nodes, func(n config.KindNode) bool { return n.Role == config.WorkerRole })
	first, workers := true, 0
	for i, n := range p.Nodes {
		h := config.Node{Name: c.Metadata.Name + "-control-plane", Roles: []config.Role{n.Role}, Labels: n.Labels, Taints: n.Taints, KubeletArgs: n.KubeletArgs}
		if misfits := n.Misfits(fmt.Sprintf("spec.provider.kind.nodes[%d]", i)); misfits != nil {
			return config.Errors(&multierror.Error{Errors: misfits})
		}
		if n.Role != config.ControlPlaneRole && n.Role != config.WorkerRole {
			return fmt.Errorf("spec.provider.kind.nodes[%d].role: %q: write control-plane or worker", i, n.Role)
		}
		if n.Role == config.ControlPlaneRole && first {
			first = false
		} else {
			workers++
			if h.Name = c.Metadata.Name + "-worker"; workers > 1 {
				h.Name += fmt.Sprint(workers)
			}
		}
		if alone && n.Taints == nil {
			h.Roles = append(h.Roles, config.WorkerRole)
		}
		c.Spec.Hosts = append(c.Spec.Hosts, h)
	}
	if first {
		return errors.New("spec.provider.kind.nodes: none is a control plane: write role: control-plane to one of them")
	}
	return nil
}

// KindForesee tells of what the engine, or etcd, would refuse once there are containers.
func KindForesee(c *config.Cluster) error {
	var all *multierror.Error
	planes := len(slices.DeleteFunc(slices.Clone(c.Spec.Hosts), func(n config.Node) bool { return !n.Has(config.ControlPlaneRole) }))
	if c.Spec.Etcd.External == nil {
		all = multierror.Append(all, phases.CheckControlPlanes(planes))
	}
	type claim struct {
		path, address, protocol string
		port                    int32
	}
	p := c.Spec.Provider.Kind
	var claims []claim
	if p.APIServerPort > 0 {
		claims = append(claims, claim{"spec.provider.kind.apiServerPort", cmp.Or(p.APIServerAddress, "127.0.0.1"), "TCP", p.APIServerPort})
	}
	for i, n := range p.Nodes {
		for j, m := range n.ExtraPortMappings {
			if m.HostPort > 0 { // else one that is free
				claims = append(claims, claim{fmt.Sprintf("spec.provider.kind.nodes[%d].extraPortMappings[%d].hostPort", i, j), cmp.Or(m.ListenAddress, "0.0.0.0"), cmp.Or(string(m.Protocol), "TCP"), m.HostPort})
			}
		}
	}
	for i, a := range claims {
		for _, b := range claims[:i] {
			if a.port == b.port && a.protocol == b.protocol && (a.address == b.address || a.address == "0.0.0.0" || b.address == "0.0.0.0") {
				all = multierror.Append(all, fmt.Errorf("%s: %d is that of %s, too: choose another one", a.path, a.port, b.path))
				break
			}
		}
	}
	return config.Errors(all)
}

// differences are the fields in which two shapes differ, as far as they are worth a name: provider.apiServerPort, nodes.ci-worker.role.
func differences(a, b string) (fields []string) {
	var x, y map[string]any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return []string{"all"}
	}
	var compare func(path []string, a, b any)
	compare = func(path []string, a, b any) {
		x, isMap := a.(map[string]any)
		y, both := b.(map[string]any)
		if !isMap || !both {
			if !reflect.DeepEqual(a, b) {
				fields = append(fields, strings.Join(path, "."))
			}
			return
		}
		keys := maps.Clone(x)
		maps.Copy(keys, y)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			compare(append(slices.Clone(path), k), x[k], y[k])
		}
	}
	compare(nil, x, y)
	return fields
}

// Expires is when a cluster's time is over; zero: never, or nobody knows.
func (k *Kind) Expires(ctx context.Context, c *config.Cluster) time.Time {
	m, err := k.marked(ctx, first(c).Name)
	if err != nil {
		return time.Time{}
	}
	return m.Expires
}

// KindImages gives the nodes of which containers are to be made their images.
func KindImages(c *config.Cluster) error {
	p := &c.Spec.Provider.Kind
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if n.Image == "" {
			n.Image = p.Image
		}
		if n.Image != "" {
			continue
		}
		if v := c.Spec.KubernetesVersion; v != "" && v != kindImageVersion {
			return fmt.Errorf("Kubernetes %s: no image of that version is known here: name one with --image (https://github.com/kubernetes-sigs/kind/releases lists kind's, each with its digest; `kubewright build node-image` makes one), or leave the version out for %s", v, kindImageVersion)
		}
		n.Image = KindImage
	}
	return nil
}

// InContainers completes a document with what holds for machines that are containers on one host: they share its
// disk, its swap and its kernel's tables, and none of them may be killed last.
func InContainers(c *config.Cluster) {
	s := &c.Spec
	s.Kubelet = behind(s.Kubelet, map[string]any{
		"failSwapOn": false, "failCgroupV1": false, "oomScoreAdj": 0, "imageGCHighThresholdPercent": 100,
		"evictionHard": map[string]any{"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
	})
	s.KubeProxy.Config = behind(s.KubeProxy.Config, map[string]any{"oomScoreAdj": 0, "conntrack": map[string]any{"maxPerCore": 0}})
	for _, san := range []string{"localhost", "127.0.0.1", "::1", s.Provider.Kind.APIServerAddress} {
		if san != "" && !slices.Contains(s.ControlPlane.CertSANs, san) {
			s.ControlPlane.CertSANs = append(s.ControlPlane.CertSANs, san)
		}
	}
	var planes []string
	for _, n := range s.Hosts {
		if n.Has(config.ControlPlaneRole) {
			planes = append(planes, n.Name)
		}
	}
	if s.ControlPlane.Endpoint == "" && len(planes) == 1 { // the engine's DNS knows it, whatever its address is
		s.ControlPlane.Endpoint = planes[0] + ":6443"
	}
}

// behind gives what is set, and of the rest what is usual.
func behind(set, usual map[string]any) map[string]any {
	out := maps.Clone(usual)
	maps.Copy(out, set)
	return out
}

// wish is the document in kind's words, as far as it is about containers.
func wish(c *config.Cluster) *v1alpha4.Cluster {
	p, n := c.Spec.Provider.Kind, c.Spec.Network
	w := &v1alpha4.Cluster{
		Networking: v1alpha4.Networking{
			IPFamily: family(n.PodCIDR, n.ServiceCIDR), PodSubnet: n.PodCIDR, ServiceSubnet: n.ServiceCIDR,
			APIServerAddress: p.APIServerAddress, APIServerPort: p.APIServerPort,
		},
		ContainerdConfigPatches: p.ContainerdConfigPatches, ContainerdConfigPatchesJSON6902: p.ContainerdConfigPatchesJSON6902,
	}
	if p.DNSSearch != nil {
		w.Networking.DNSSearch = &p.DNSSearch
	}
	first := true
	for _, n := range p.Nodes {
		to := v1alpha4.Node{Role: v1alpha4.WorkerRole, Image: n.Image, ExtraMounts: n.ExtraMounts, ExtraPortMappings: n.ExtraPortMappings}
		if n.Role == config.ControlPlaneRole && first {
			to.Role, first = v1alpha4.ControlPlaneRole, false
		}
		w.Nodes = append(w.Nodes, to)
	}
	v1alpha4.SetDefaultsCluster(w)
	return w
}

// family is that of the ranges.
func family(ranges ...string) v1alpha4.ClusterIPFamily {
	for _, r := range ranges {
		if a, b, dual := strings.Cut(r, ","); dual {
			return v1alpha4.DualStackFamily
		} else if strings.Contains(a+b, ":") {
			return v1alpha4.IPv6Family
		}
	}
	return v1alpha4.IPv4Family
}
