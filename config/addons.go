package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// CloudController is a cloud-controller-manager on the control planes. Kubelets then leave it to this one to say what their nodes are.
type CloudController struct {
	Name      string `json:"name,omitempty"` // one of [CloudControllers], or empty: none
	Component        // of its pods, which are no static ones
}

// ExternalCloud tells whether a cloud controller says what the nodes are. Until it has, each has a taint.
func (c *Cluster) ExternalCloud() bool { return c.Spec.Addons.CloudController.Name != "" }

func (p *problems) addons(s Spec) {
	if s.Addons.Ingress != "" {
		p.oneOf("spec.addons.ingress", s.Addons.Ingress, Ingresses)
	}
	p.cloudController(s)
	if s.Provider.Name == "kind" && (s.Addons.CloudController.Name != "" || s.Addons.EBSCSI) {
		p.add("spec.addons", "cloudController and ebsCSI are for machines of a cloud, and those of provider kind are containers: leave them out")
	}
	for i, ns := range s.Addons.DefaultDeny {
		p.each(fmt.Sprintf("spec.addons.defaultDeny[%d]", i), validation.IsDNS1123Label(ns))
		if strings.HasPrefix(ns, "kube-") {
			p.add(fmt.Sprintf("spec.addons.defaultDeny[%d]", i), "%s is the cluster's own, which would stop: name namespaces of yours", ns)
		}
		if slices.Contains(s.Addons.DefaultDeny[:i], ns) {
			p.add(fmt.Sprintf("spec.addons.defaultDeny[%d]", i), "%s is there twice: leave one out", ns)
		}
	}
	if s.Addons.EBSCSI && s.Addons.LocalPath {
		p.add("spec.addons", "localPath and ebsCSI both bring a default StorageClass: leave one out")
	}
	if len(s.Addons.DefaultDeny) > 0 && s.Network.CNI.Name == "flannel" {
		p.add("spec.addons.defaultDeny", "flannel heeds no NetworkPolicy, so nothing would be denied: choose calico or weave, or leave it out")
	}
}

func (p *problems) cloudController(s Spec) {
	const path = "spec.addons.cloudController"
	c := s.Addons.CloudController
	if c.Name == "" {
		if !reflect.ValueOf(c).IsZero() {
			p.add(path+".name", "is missing: write one of %s, or leave out what stands beside it", strings.Join(CloudControllers, ", "))
		}
		return
	}
	p.oneOf(path+".name", c.Name, CloudControllers)
	p.component(path, c.Component)
	// Kubelets say which addresses their nodes have, and one that the controller does not know of holds the node back for ever.
	own := slices.ContainsFunc(c.ExtraArgs, func(a Arg) bool { return a.Name == "cloud-config" })
	if s.Network.UsesIPv6() && c.Name == "aws" && !own {
		p.add(path, "aws takes the IPv4 addresses of nodes alone, unless its own configuration says otherwise: write ranges of IPv4 under spec.network, "+
			"or a file with NodeIPFamilies under extraVolumes, and its path as extraArgs cloud-config")
	}
}
