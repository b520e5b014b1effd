package addons

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// calicoPatch is one change of Calico's manifest. It fails where what it changes is not as it knows it.
type calicoPatch struct {
	name, object string
	change       func(*calico) error
}

// The ConfigMap with which Calico's own containers can be told where the API is.
const endpointConfig = "kubernetes-services-endpoint"

// calicoPatches are all changes, in the order in which they are made.
func calicoPatches() []calicoPatch {
	const node, settings = "DaemonSet calico-node", "ConfigMap calico-config"
	return []calicoPatch{
		{"images", node + " and Deployment calico-kube-controllers", (*calico).images},
		{"pod ranges", node, (*calico).pools},
		{"encapsulation", settings + " and " + node, (*calico).encapsulation},
		{"probes of BIRD", node, (*calico).probes},
		{"IPv6", settings + " and " + node, (*calico).ipv6},
		{"MTU", settings, (*calico).mtu},
		{"address of the node", node, (*calico).detection},
		{"address of the API", node, (*calico).endpoint},
		{"nftables", node, (*calico).nftables},
		{"typha", settings + " and " + node, (*calico).typha},
		{"nothing to upgrade", node, (*calico).fresh},
		{"tolerations", node + " and Deployment calico-kube-controllers", (*calico).tolerations},
	}
}

// images are left as upstream names them: mirrors are the runtime's matter. But all must be known, or hosts
// would not get them.
func (p *calico) images() error {
	known := []string{calicoImage(p.cluster, "node"), calicoImage(p.cluster, "cni"), calicoImage(p.cluster, "kube-controllers")}
	seen := map[string]bool{}
	for _, pod := range []*corev1.PodSpec{&p.node.Spec.Template.Spec, &p.controllers.Spec.Template.Spec} {
		for _, list := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
			for _, c := range list {
				if !slices.Contains(known, c.Image) {
					return fmt.Errorf("container %s runs %s, which is none of %s", c.Name, c.Image, strings.Join(known, ", "))
				}
				if c.ImagePullPolicy != corev1.PullIfNotPresent {
					return fmt.Errorf("container %s pulls its image %s, not IfNotPresent: a host without a registry has it already", c.Name, c.ImagePullPolicy)
				}
				seen[c.Image] = true
			}
		}
	}
	for _, image := range known {
		if !seen[image] {
			return fmt.Errorf("no container runs %s", image)
		}
	}
	return nil
}

// pools are made by the first calico-node that starts, of these ranges; later values change nothing. Pods get
// IPv6 translated where nobody else routes their addresses, as with IPv4.
func (p *calico) pools() error {
	if p.env("CALICO_IPV4POOL_IPIP") == nil {
		return errors.New("container calico-node says nothing of pools: CALICO_IPV4POOL_IPIP is not there")
	}
	pool := func(r netip.Prefix) string {
		if !r.IsValid() {
			return "none" // or there would be one of its own choice, of IPv6 even where no pod has it
		}
		return r.String()
	}
	added := []corev1.EnvVar{{Name: "CALICO_IPV4POOL_CIDR", Value: pool(p.v4)}, {Name: "CALICO_IPV6POOL_CIDR", Value: pool(p.v6)}}
	if p.v6.IsValid() {
		added = append(added, corev1.EnvVar{Name: "CALICO_IPV6POOL_NAT_OUTGOING", Value: strconv.FormatBool(p.v6.Addr().IsPrivate())})
	}
	return p.addEnv(added...)
}

// encapsulation is the same for all traffic between hosts. VXLAN is used within a subnet too, where Calico could
// do without (CrossSubnet): clouds and virtual switches that know the hosts' addresses alone drop pods' there.
func (p *calico) encapsulation() error {
	backend, ipip, vxlan := "bird", "Never", "Never"
	switch p.cluster.Spec.Network.CNI.Calico.Encapsulation {
	case "vxlan":
		backend, vxlan = "vxlan", "Always"
	case "ipip":
		ipip = "Always"
	}
	return errors.Join(p.set("calico_backend", backend),
		p.setEnv("CALICO_IPV4POOL_IPIP", ipip), p.setEnv("CALICO_IPV4POOL_VXLAN", vxlan), p.setEnv("CALICO_IPV6POOL_VXLAN", vxlan))
}

// probes of BIRD would fail for ever where it does not run.
func (p *calico) probes() error {
	main := containerOf(p.node.Spec.Template.Spec.Containers, "calico-node")
	if main == nil {
		return errors.New("there is no container calico-node")
	}
	for word, probe := range map[string]*corev1.Probe{"-bird-live": main.LivenessProbe, "-bird-ready": main.ReadinessProbe} {
		if probe == nil || probe.Exec == nil || !slices.Contains(probe.Exec.Command, word) {
			return fmt.Errorf("no probe of container calico-node says %s", word)
		}
		if p.config.Data["calico_backend"] != "bird" {
			probe.Exec.Command = slices.DeleteFunc(probe.Exec.Command, func(s string) bool { return s == word })
		}
	}
	return nil
}

// ipv6 gives pods addresses of the families that they have ranges of.
func (p *calico) ipv6() error {
	const conf, ipam = "cni_network_config", `"type": "calico-ipam"`
	if n := strings.Count(p.config.Data[conf], ipam); n != 1 {
		return fmt.Errorf("%s has %s %d times, not once", conf, ipam, n)
	}
	if p.env("FELIX_IPV6SUPPORT") == nil {
		return errors.New("container calico-node has no variable FELIX_IPV6SUPPORT")
	}
	if !p.v6.IsValid() {
		return nil
	}
	assign := fmt.Sprintf(`%s, "assign_ipv4": "%t", "assign_ipv6": "true"`, ipam, p.v4.IsValid())
	err := errors.Join(p.set(conf, strings.Replace(p.config.Data[conf], ipam, assign, 1)),
		p.setEnv("FELIX_IPV6SUPPORT", "true"), p.addEnv(corev1.EnvVar{Name: "IP6", Value: "autodetect"}))
	if !p.v4.IsValid() { // BIRD takes its name from an IPv4 address, else
		err = errors.Join(err, p.setEnv("IP", "none"), p.addEnv(corev1.EnvVar{Name: "CALICO_ROUTER_ID", Value: "hash"}))
	}
	return err
}

// mtu is found out by Calico where the document says nothing.
func (p *calico) mtu() error {
	return p.set("veth_mtu", strconv.Itoa(p.cluster.Spec.Network.CNI.MTU))
}

// detection is how each node finds the addresses at which others reach it: those of its Node, unless the document
// says otherwise. Upstream takes the first interface that it finds.
func (p *calico) detection() error {
	if p.env("IP") == nil {
		return errors.New("container calico-node has no variable IP")
	}
	method := p.cluster.Spec.Network.CNI.Calico.Interface
	var added []corev1.EnvVar
	if p.v4.IsValid() {
		added = append(added, corev1.EnvVar{Name: "IP_AUTODETECTION_METHOD", Value: detection(method, false)})
	}
	if p.v6.IsValid() {
		added = append(added, corev1.EnvVar{Name: "IP6_AUTODETECTION_METHOD", Value: detection(method, true)})
	}
	return p.addEnv(added...)
}

// detection is a method as far as it is about one family. What is about the other alone leaves the Node's address.
func detection(method string, v6 bool) string {
	const ofNode = "kubernetes-internal-ip"
	kind, value, _ := strings.Cut(method, "=")
	switch kind {
	case "":
		return ofNode
	case "can-reach":
		if ip, err := netip.ParseAddr(value); err == nil && ip.Is6() != v6 {
			return ofNode
		}
	case "cidr":
		ranges := slices.DeleteFunc(strings.Split(value, ","), func(s string) bool {
			r, err := netip.ParsePrefix(s)
			return err != nil || r.Addr().Is6() != v6
		})
		if len(ranges) == 0 {
			return ofNode
		}
		return kind + "=" + strings.Join(ranges, ",")
	}
	return method
}

// endpoint holds the manifest to its own way of being told where the API is: straight there, not by its service
// address, Calico need not wait for kube-proxy, or be lost without it.
func (p *calico) endpoint() error {
	pod := p.node.Spec.Template.Spec
	for _, c := range []struct {
		name string
		list []corev1.Container
	}{{"install-cni", pod.InitContainers}, {"calico-node", pod.Containers}} {
		found := containerOf(c.list, c.name)
		if found == nil || !slices.ContainsFunc(found.EnvFrom, func(e corev1.EnvFromSource) bool {
			return e.ConfigMapRef != nil && e.ConfigMapRef.Name == endpointConfig
		}) {
			return fmt.Errorf("container %s does not read ConfigMap %s", c.name, endpointConfig)
		}
	}
	return nil
}

// nftables has Calico write its rules where kube-proxy does: both look at the same packets.
func (p *calico) nftables() error {
	mode := map[string]string{"nftables": "Enabled", "iptables": "Disabled", "ipvs": "Disabled"}[p.cluster.Spec.KubeProxy.Mode]
	if mode == "" {
		mode = "Auto"
	}
	return p.addEnv(corev1.EnvVar{Name: "FELIX_NFTABLESMODE", Value: mode})
}

// typha has calico-node ask Typha, where there is one.
func (p *calico) typha() error {
	name := "none"
	if p.cluster.Typhas() > 0 {
		name = typhaName
	}
	err := p.set("typha_service_name", name)
	if name == "none" {
		return err
	}
	return errors.Join(err, p.addEnv(corev1.EnvVar{Name: "FELIX_TYPHAK8SSERVICENAME", ValueFrom: &corev1.EnvVarSource{
		ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "calico-config"}, Key: "typha_service_name"},
	}}))
}

// fresh leaves out what looks for addresses of host-local: a cluster of ours had no network before this one.
func (p *calico) fresh() error {
	const upgrade, volume = "upgrade-ipam", "host-local-net-dir"
	pod := &p.node.Spec.Template.Spec
	if containerOf(pod.InitContainers, upgrade) == nil {
		return fmt.Errorf("there is no container %s", upgrade)
	}
	pod.InitContainers = slices.DeleteFunc(pod.InitContainers, func(c corev1.Container) bool { return c.Name == upgrade })
	n := len(pod.Volumes)
	if pod.Volumes = slices.DeleteFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == volume }); len(pod.Volumes) == n {
		return fmt.Errorf("there is no volume %s", volume)
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume }) {
			return fmt.Errorf("container %s reads the volume %s, too", c.Name, volume)
		}
	}
	return nil
}

// tolerations let Calico run on every node, whatever its taints, and its controllers on control planes, which may be
// all there is.
func (p *calico) tolerations() error {
	node, controllers := &p.node.Spec.Template.Spec, &p.controllers.Spec.Template.Spec
	if len(node.Tolerations) == 0 || len(controllers.Tolerations) == 0 {
		return errors.New("one of them tolerates nothing")
	}
	node.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	controllers.Tolerations = []corev1.Toleration{
		{Key: "CriticalAddonsOnly", Operator: corev1.TolerationOpExists},
		{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule},
	}
	return nil
}
