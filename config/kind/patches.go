package kind

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/config/kubeadm"
)

// apiVersions of the documents that patches are fragments of. They need not say theirs, and old ones say
// an old one; what they hold counts.
var apiVersions = map[string]string{
	"InitConfiguration":      "kubeadm.k8s.io/v1beta4",
	"JoinConfiguration":      "kubeadm.k8s.io/v1beta4",
	"ClusterConfiguration":   "kubeadm.k8s.io/v1beta4",
	"KubeletConfiguration":   "kubelet.config.k8s.io/v1beta1",
	"KubeProxyConfiguration": "kubeproxy.config.k8s.io/v1alpha1",
}

// registration is what a patch may say of a node.
type registration struct {
	NodeRegistration struct {
		KubeletExtraArgs []config.Arg   `json:"kubeletExtraArgs"`
		Taints           []corev1.Taint `json:"taints"`
	} `json:"nodeRegistration"`
}

// patched is the cluster of the patches for all nodes, and what they say of the first control plane
// and of the other nodes.
func (r *reader) patched() (c *config.Cluster, first, others map[string]any) {
	const at = "kubeadmConfigPatches"
	merged := r.merge(at, r.kind.KubeadmConfigPatches, nil)
	first, others = merged["InitConfiguration"], merged["JoinConfiguration"]
	delete(merged, "InitConfiguration")
	delete(merged, "JoinConfiguration")
	c = &config.Cluster{}
	if len(merged) == 0 {
		return c, first, others
	}
	var text []byte
	for _, kind := range slices.Sorted(maps.Keys(merged)) {
		b, err := yaml.Marshal(merged[kind])
		if err != nil {
			r.add(at, "%v", err)
		}
		text = append(append(text, "---\n"...), b...)
	}
	d, err := kubeadm.Parse(text)
	if err != nil {
		r.add(at, "%v", err)
		return c, first, others
	}
	return d.Cluster, first, others
}

// merge lays patches over each other, by the kind of document (RFC 7386).
func (r *reader) merge(at string, patches []string, over map[string]map[string]any) map[string]map[string]any {
	all := map[string]map[string]any{}
	maps.Copy(all, over)
	for i, p := range patches {
		for _, d := range config.Documents([]byte(p)) {
			path := fmt.Sprintf("%s[%d]", at, i)
			object, err := config.Object(d)
			kind, _ := object["kind"].(string)
			if err == nil && apiVersions[kind] == "" {
				err = fmt.Errorf("kind %q: write one of %s", kind, strings.Join(slices.Sorted(maps.Keys(apiVersions)), ", "))
			}
			if err != nil {
				r.add(path, "%v", err)
				continue
			}
			object["apiVersion"] = apiVersions[kind]
			listed(object)
			have := all[kind]
			if have == nil {
				have = map[string]any{}
			}
			all[kind] = mergePatch(have, object).(map[string]any)
		}
	}
	return all
}

func mergePatch(have, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if h, ok := have.(map[string]any); ok {
		maps.Copy(out, h)
	}
	for name, v := range p {
		if v == nil {
			delete(out, name)
		} else {
			out[name] = mergePatch(out[name], v)
		}
	}
	return out
}

// listed makes of the arguments of kubeadm before v1beta4, which are maps, the lists of today.
func listed(object map[string]any) {
	for name, v := range object {
		m, ok := v.(map[string]any)
		switch {
		case !ok:
		case name == "extraArgs" || name == "kubeletExtraArgs":
			list := []any{}
			for _, arg := range slices.Sorted(maps.Keys(m)) {
				list = append(list, map[string]any{"name": arg, "value": fmt.Sprint(m[arg])})
			}
			object[name] = list
		default:
			listed(m)
		}
	}
}

// node adds what patches say of a node: those of the cluster first, in documents of a kind.
func (r *reader) node(path string, n v1alpha4.Node, to *config.KindNode, over map[string]any, of string) {
	if n.KubeadmConfigPatchesJSON6902 != nil {
		r.add(path+".kubeadmConfigPatchesJSON6902", noJSON6902)
	}
	for i, m := range to.ExtraPortMappings {
		to.ExtraPortMappings[i].Protocol = v1alpha4.PortMappingProtocol(strings.ToUpper(string(m.Protocol)))
	}
	r.all = append(r.all, to.Misfits(path)...)
	path += ".kubeadmConfigPatches"
	merged := r.merge(path, n.KubeadmConfigPatches, map[string]map[string]any{of: over})
	for _, kind := range slices.Sorted(maps.Keys(merged)) {
		switch kind {
		case of, "InitConfiguration", "JoinConfiguration": // the other one is for nodes of the other sort, as in kind
		default:
			r.add(path, "%s of one node: kubewright gives all nodes the same: write it into kubeadmConfigPatches of the cluster", kind)
		}
	}
	object := merged[of]
	delete(object, "apiVersion")
	delete(object, "kind")
	if misfits := config.Misfits(of, object, reflect.TypeFor[registration]()); misfits != nil {
		for _, m := range misfits {
			r.add(path, "%v (of %s kubewright honours nodeRegistration.kubeletExtraArgs and .taints)", m, of)
		}
		return
	}
	var k registration
	b, err := yaml.Marshal(object)
	if err == nil {
		b, err = yaml.YAMLToJSON(b)
	}
	if err == nil {
		_, err = kjson.UnmarshalStrict(b, &k)
	}
	if err != nil {
		r.add(path, "%v", err)
		return
	}
	to.Taints = k.NodeRegistration.Taints
	for _, a := range k.NodeRegistration.KubeletExtraArgs {
		if a.Name != "node-labels" { // the kubelet may not set all that we may
			to.KubeletArgs = append(to.KubeletArgs, a)
			continue
		}
		labels := map[string]string{}
		maps.Copy(labels, to.Labels)
		for _, pair := range strings.Split(a.Value, ",") {
			name, value, _ := strings.Cut(pair, "=")
			labels[name] = value
		}
		to.Labels = labels
	}
}
