// Package kind reads the configuration of kind, `kind: Cluster` of kind.x-k8s.io/v1alpha4.
//
// In goes its YAML; out comes a [config.Cluster] whose machines are containers. A field that we don't
// honour is an error that names it, as is one that kind does not know.
package kind

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"github.com/kubewright/kubewright/config"
)

const (
	group   = "kind.x-k8s.io/"
	version = group + "v1alpha4"
)

// Is tells whether a file holds kind's configuration, of whatever version.
func Is(b []byte) bool {
	object, err := config.Object(b)
	v, _ := object["apiVersion"].(string)
	return err == nil && strings.HasPrefix(v, group)
}

// Parse decodes kind's configuration, strictly, and reports everything that is wrong with it at once. The
// cluster is not defaulted.
func Parse(b []byte) (*config.Cluster, error) {
	object, err := config.Object(b)
	if err != nil {
		return nil, err
	}
	if len(config.Documents(b)) > 1 {
		return nil, errors.New("several documents: write one Cluster, and no more, into the file")
	}
	if object["apiVersion"] != version || object["kind"] != "Cluster" {
		return nil, fmt.Errorf("apiVersion %v, kind %v: only Cluster of %s is read", object["apiVersion"], object["kind"], version)
	}
	if misfits := config.Misfits("", object, reflect.TypeFor[v1alpha4.Cluster]()); misfits != nil {
		return nil, config.Errors(&multierror.Error{Errors: misfits})
	}
	j, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	k := v1alpha4.Cluster{}
	if strict, err := kjson.UnmarshalStrict(j, &k); err != nil || strict != nil {
		return nil, errors.Join(append(strict, err)...)
	}
	r := &reader{kind: k}
	c := r.cluster()
	if r.all != nil {
		return nil, config.Errors(&multierror.Error{Errors: r.all})
	}
	return c, nil
}

// reader collects errors, each with the path of its field.
type reader struct {
	kind v1alpha4.Cluster
	all  []error
}

func (r *reader) add(path, format string, args ...any) {
	r.all = append(r.all, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

const noJSON6902 = "kubewright does not honour JSON 6902 patches: write the same as kubeadmConfigPatches"

func (r *reader) cluster() *config.Cluster {
	k := r.kind
	if k.KubeadmConfigPatchesJSON6902 != nil {
		r.add("kubeadmConfigPatchesJSON6902", noJSON6902)
	}
	c, first, others := r.patched()
	c.APIVersion, c.Kind = config.APIVersion, config.Kind
	c.Metadata.Name = k.Name
	s := &c.Spec
	s.Provider.Name = "kind"
	p := &s.Provider.Kind
	p.ContainerdConfigPatches, p.ContainerdConfigPatchesJSON6902 = k.ContainerdConfigPatches, k.ContainerdConfigPatchesJSON6902
	r.networking(c)
	if len(k.FeatureGates) > 0 {
		s.FeatureGates = k.FeatureGates
	}
	if len(k.RuntimeConfig) > 0 {
		var all []string
		for _, name := range slices.Sorted(maps.Keys(k.RuntimeConfig)) {
			all = append(all, name+"="+k.RuntimeConfig[name])
		}
		s.APIServer.ExtraArgs = append(s.APIServer.ExtraArgs, config.Arg{Name: "runtime-config", Value: strings.Join(all, ",")})
	}
	if len(k.Nodes) == 0 {
		k.Nodes = []v1alpha4.Node{{}}
	}
	begun := false
	for i, n := range k.Nodes {
		v1alpha4.SetDefaultsNode(&n)
		to := config.KindNode{Role: config.Role(n.Role), Image: k.Nodes[i].Image, Labels: n.Labels, ExtraMounts: n.ExtraMounts, ExtraPortMappings: n.ExtraPortMappings}
		registration, of := others, "JoinConfiguration"
		if n.Role == v1alpha4.ControlPlaneRole && !begun {
			registration, of, begun = first, "InitConfiguration", true
		}
		r.node(fmt.Sprintf("nodes[%d]", i), n, &to, registration, of)
		p.Nodes = append(p.Nodes, to)
	}
	return c
}

func (r *reader) networking(c *config.Cluster) {
	k, s := r.kind.Networking, &c.Spec
	p := &s.Provider.Kind
	p.APIServerAddress, p.APIServerPort = k.APIServerAddress, k.APIServerPort
	if k.DNSSearch != nil {
		p.DNSSearch = append([]string{}, *k.DNSSearch...)
	}
	switch k.IPFamily {
	case "", v1alpha4.IPv4Family, v1alpha4.IPv6Family, v1alpha4.DualStackFamily:
	default:
		r.add("networking.ipFamily", "%q: write ipv4, ipv6 or dual", k.IPFamily)
	}
	switch k.KubeProxyMode {
	case "", v1alpha4.IPTablesProxyMode, v1alpha4.IPVSProxyMode, v1alpha4.NFTablesProxyMode, "none":
	default:
		r.add("networking.kubeProxyMode", "%q: write iptables, nftables, ipvs or none", k.KubeProxyMode)
	}
	whole := v1alpha4.Cluster{Networking: k}
	v1alpha4.SetDefaultsCluster(&whole) // a kind user's ranges are kind's
	s.Network.PodCIDR, s.Network.ServiceCIDR = whole.Networking.PodSubnet, whole.Networking.ServiceSubnet
	if k.KubeProxyMode != "" {
		s.KubeProxy.Mode = string(k.KubeProxyMode)
	}
	if s.Network.CNI.Name = "flannel"; k.DisableDefaultCNI {
		s.Network.CNI.Name = "none"
	}
}
