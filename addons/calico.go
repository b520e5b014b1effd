package addons

import (
	"fmt"
	"maps"
	"net/netip"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubewright/kubewright/config"
)

// calico is what patches change: the three objects of Calico's manifest that are about a cluster. All
// others are the same everywhere.
type calico struct {
	cluster     *config.Cluster
	v4, v6      netip.Prefix // of pods; the zero Prefix where there is none of that family
	config      *corev1.ConfigMap
	node        *appsv1.DaemonSet
	controllers *appsv1.Deployment
}

// Calico returns Calico: the objects of its own manifest, calico.yaml of the version that the document
// names, changed by [calicoPatches]; and Typha, which that manifest leaves out, where there is to be one.
// Server is the address of the API, as in [Flannel]. A patch that does not fit is an error with its name.
func Calico(c *config.Cluster, server string, manifest []Object) ([]Object, error) {
	api, err := parseAPI(server)
	if err != nil {
		return nil, err
	}
	version := c.Spec.Network.CNI.Calico.Version
	if len(manifest) == 0 {
		return nil, fmt.Errorf("the manifest of Calico %s is not at hand: `kubewright up --bundle` and `init --bundle` leave it in the cache, else it is downloaded", version)
	}
	p := &calico{cluster: c, config: &corev1.ConfigMap{}, node: &appsv1.DaemonSet{}, controllers: &appsv1.Deployment{}}
	for _, r := range c.Spec.Network.PodRanges() {
		if r.Addr().Is4() {
			p.v4 = r
		} else {
			p.v6 = r
		}
	}
	typed := map[string]runtime.Object{
		"ConfigMap calico-config": p.config, "DaemonSet calico-node": p.node, "Deployment calico-kube-controllers": p.controllers,
	}
	for _, o := range manifest {
		into, ok := typed[o.GetKind()+" "+o.GetName()]
		if !ok {
			continue
		}
		// Strictly: a field that this kubewright does not know would be lost.
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, into, true); err != nil {
			return nil, fmt.Errorf("the manifest of Calico %s: %s %s: %w", version, o.GetKind(), o.GetName(), err)
		}
	}
	where := &corev1.ConfigMap{ObjectMeta: named(kubeSystem, endpointConfig), Data: map[string]string{
		"KUBERNETES_SERVICE_HOST": api.Hostname(), "KUBERNETES_SERVICE_PORT": portOf(api),
	}}
	for _, patch := range calicoPatches() {
		if err := patch.change(p); err != nil {
			return nil, fmt.Errorf("the manifest of Calico %s is not one that this kubewright knows: patch %q of %s: %w; write another version, or install this one with cni.name: manifest", version, patch.name, patch.object, err)
		}
	}
	p.restart(where)
	var out []Object
	for _, o := range manifest {
		if changed, ok := typed[o.GetKind()+" "+o.GetName()]; ok {
			o = objects(changed)[0]
		}
		out = append(out, o)
	}
	out = append(out, objects(where)...)
	if n := c.Typhas(); n > 0 {
		out = append(out, typha(c, n)...)
	}
	return out, nil
}

// env is a variable of the container calico-node; nil where the manifest has none of that name.
func (p *calico) env(name string) *corev1.EnvVar {
	main := containerOf(p.node.Spec.Template.Spec.Containers, "calico-node")
	if main == nil {
		return nil
	}
	for i := range main.Env {
		if main.Env[i].Name == name {
			return &main.Env[i]
		}
	}
	return nil
}

// setEnv changes a variable that is there.
func (p *calico) setEnv(name, value string) error {
	have := p.env(name)
	if have == nil {
		return fmt.Errorf("container calico-node has no variable %s", name)
	}
	*have = corev1.EnvVar{Name: name, Value: value}
	return nil
}

// addEnv adds a variable that is not there.
func (p *calico) addEnv(added ...corev1.EnvVar) error {
	main := containerOf(p.node.Spec.Template.Spec.Containers, "calico-node")
	if main == nil {
		return fmt.Errorf("there is no container calico-node")
	}
	for _, e := range added {
		if have := p.env(e.Name); have != nil {
			return fmt.Errorf("container calico-node has a variable %s already, %q", e.Name, have.Value)
		}
		main.Env = append(main.Env, e)
	}
	return nil
}

// restart has calico-node begin anew when what it reads at its start alone is another.
func (p *calico) restart(where *corev1.ConfigMap) {
	template := &p.node.Spec.Template
	if template.Annotations == nil {
		template.Annotations = map[string]string{}
	}
	maps.Copy(template.Annotations, digestOf(p.config, where))
}

// set changes a setting of the ConfigMap, which is there.
func (p *calico) set(key, value string) error {
	if _, ok := p.config.Data[key]; !ok {
		return fmt.Errorf("it has no key %s", key)
	}
	p.config.Data[key] = value
	return nil
}

func containerOf(list []corev1.Container, name string) *corev1.Container {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}
