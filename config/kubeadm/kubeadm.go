// Package kubeadm reads and writes kubeadm's documents, those of kubeadm.k8s.io/v1beta4.
//
// In goes YAML with any number of them, those of the kubelet and of kube-proxy among them;
// out comes a [config.Cluster], and what is said of one run or one host alone. A field that
// we don't honour is an error that names it, as is one that kubeadm does not know.
package kubeadm

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	kjson "sigs.k8s.io/json"

	"github.com/kubewright/kubewright/config"
)

const (
	group   = "kubeadm.k8s.io/"
	version = group + "v1beta4"
)

// Documents is what one file says. It holds secrets: never print it.
type Documents struct {
	// Cluster is nil where no document describes one. It is not defaulted. The host of
	// Init.Node is not among its hosts, as its name may not be known yet.
	Cluster *config.Cluster
	Init    *Run // nil where there is neither InitConfiguration nor another document of init
	Join    *Run // nil where there is no JoinConfiguration
	// Unkept are fields that have no place in a Cluster document, each with what to write instead.
	Unkept []string
}

// kinds are the documents that we take: what reads them, and their types.
var kinds = map[string]struct {
	apiVersion string
	form       reflect.Type
}{
	"InitConfiguration":      {version, reflect.TypeFor[initConfiguration]()},
	"ClusterConfiguration":   {version, reflect.TypeFor[clusterConfiguration]()},
	"JoinConfiguration":      {version, reflect.TypeFor[joinConfiguration]()},
	"KubeletConfiguration":   {"kubelet.config.k8s.io/v1beta1", reflect.TypeFor[kubeletv1beta1.KubeletConfiguration]()},
	"KubeProxyConfiguration": {"kubeproxy.config.k8s.io/v1alpha1", reflect.TypeFor[kubeproxyv1alpha1.KubeProxyConfiguration]()},
}

// foreign are those of commands that take none.
var foreign = map[string]string{
	"ResetConfiguration":   "it is for `kubeadm reset`: take it out; kubewright reset has flags",
	"UpgradeConfiguration": "it is for `kubeadm upgrade`: take it out",
}

// Is tells whether a file holds kubeadm's documents, of whatever version, and not a Cluster document.
func Is(b []byte) bool {
	for _, d := range config.Documents(b) {
		object, err := config.Object(d)
		if err != nil {
			continue
		}
		v := fmt.Sprint(object["apiVersion"])
		for _, g := range []string{group, "kubelet.config.k8s.io/", "kubeproxy.config.k8s.io/"} {
			if strings.HasPrefix(v, g) {
				return true
			}
		}
	}
	return false
}

// Parse decodes all documents of a file, strictly, and reports everything that is wrong
// with them at once.
func Parse(b []byte) (*Documents, error) {
	objects := map[string]map[string]any{}
	var all []error
	for i, d := range config.Documents(b) {
		object, err := config.Object(d)
		if err != nil {
			all = append(all, fmt.Errorf("document %d: %w", i+1, err))
			continue
		}
		kind := fmt.Sprint(object["kind"])
		if err := head(kind, object); err != nil {
			all = append(all, fmt.Errorf("document %d: %w", i+1, err))
			continue
		}
		if objects[kind] != nil {
			all = append(all, fmt.Errorf("document %d: a second %s: write one into the file", i+1, kind))
		}
		objects[kind] = object
	}
	d := &Documents{Unkept: unkept(objects)}
	for _, kind := range slices.Sorted(maps.Keys(objects)) {
		object := objects[kind]
		all = append(all, checkFields(kind, object)...)
		all = append(all, config.Misfits(kind, object, kinds[kind].form)...)
	}
	if all == nil {
		all = d.take(objects)
	}
	if all != nil {
		slices.SortStableFunc(all, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return nil, config.Errors(&multierror.Error{Errors: all})
	}
	return d, nil
}

// head looks at what a document says that it is.
func head(kind string, object map[string]any) error {
	have, _ := object["apiVersion"].(string)
	k, ok := kinds[kind]
	instead, known := foreign[kind]
	switch {
	case have == "" || object["kind"] == nil:
		return errors.New("it has no apiVersion or no kind: write both")
	case strings.HasPrefix(have, group) && have != version:
		return fmt.Errorf("%s %s: only %s is read: convert the file with `kubeadm config migrate --old-config FILE --new-config NEW`", have, kind, version)
	case known && have == version:
		return fmt.Errorf("%s: %s", kind, instead)
	case !ok || k.apiVersion != have:
		return fmt.Errorf("%s %s: this is no document of kubeadm: the file may hold %s of %s, KubeletConfiguration of %s and KubeProxyConfiguration of %s",
			have, kind, "InitConfiguration, ClusterConfiguration and JoinConfiguration", version, kinds["KubeletConfiguration"].apiVersion, kinds["KubeProxyConfiguration"].apiVersion)
	}
	return nil
}

// decode fills a type that an object fits.
func decode(object map[string]any, into any) error {
	b, err := json.Marshal(object)
	if err != nil {
		return err
	}
	strict, err := kjson.UnmarshalStrict(b, into)
	return errors.Join(append(strict, err)...)
}

// take fills d with objects that fit their types.
func (d *Documents) take(objects map[string]map[string]any) (all []error) {
	p := &problems{}
	ofInit := false
	for kind := range objects {
		ofInit = ofInit || kind != "JoinConfiguration"
	}
	if objects["JoinConfiguration"] != nil {
		var k joinConfiguration
		if err := decode(objects["JoinConfiguration"], &k); err != nil {
			return []error{fmt.Errorf("JoinConfiguration: %w", err)}
		}
		d.Join = p.join(k)
		// A file for both commands is fine; a joining kubelet takes the cluster's configuration.
		if objects["InitConfiguration"] == nil && objects["ClusterConfiguration"] == nil {
			for _, kind := range []string{"KubeletConfiguration", "KubeProxyConfiguration"} {
				if objects[kind] != nil {
					p.add(kind, "a joining host takes that of the cluster: leave it out, or write a patch for this host into patches.directory")
				}
			}
		}
	}
	if !ofInit {
		return p.all
	}
	d.Cluster, d.Init = &config.Cluster{}, &Run{}
	s := &d.Cluster.Spec
	if objects["ClusterConfiguration"] != nil {
		var k clusterConfiguration
		if err := decode(objects["ClusterConfiguration"], &k); err != nil {
			return append(p.all, fmt.Errorf("ClusterConfiguration: %w", err))
		}
		p.cluster(k)
		k.into(d.Cluster)
	}
	// kubeadm has no word for the pod network. A range of pods asks for one; without a range
	// the user has something else in mind, and flannel could not run.
	if s.Network.CNI.Name = "none"; s.Network.PodCIDR != "" {
		s.Network.CNI.Name = "flannel"
	}
	if objects["InitConfiguration"] != nil {
		var k initConfiguration
		if err := decode(objects["InitConfiguration"], &k); err != nil {
			return append(p.all, fmt.Errorf("InitConfiguration: %w", err))
		}
		d.Init = p.init(k, s)
	}
	if k := objects["KubeletConfiguration"]; k != nil {
		s.Kubelet = body(k)
	}
	if k := objects["KubeProxyConfiguration"]; k != nil {
		b := body(k)
		if mode, _ := b["mode"].(string); s.KubeProxy.Mode == "" { // else it is disabled
			s.KubeProxy.Mode = mode
		}
		delete(b, "mode")
		s.KubeProxy.Config = b
	}
	return p.all
}

// body is a document without its head.
func body(object map[string]any) map[string]any {
	b := maps.Clone(object)
	delete(b, "apiVersion")
	delete(b, "kind")
	return b
}
