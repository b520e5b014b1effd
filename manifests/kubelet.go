package manifests

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	kjson "sigs.k8s.io/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1 "k8s.io/kubelet/config/v1beta1"
	kubeletapis "k8s.io/kubelet/pkg/apis"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// systemd-resolved's own list of servers. /etc/resolv.conf names its stub on loopback
// then, to which CoreDNS would forward queries that come back to CoreDNS.
const resolvedConf = "/run/systemd/resolve/resolv.conf"

// KubeletConfiguration is the configuration that all kubelets of the cluster share, as it
// stands in kube-system/kubelet-config: kubeadm's defaults, and spec.kubelet over them.
func KubeletConfiguration(c *config.Cluster) ([]byte, error) {
	dns, err := DNSAddress(c)
	if err != nil {
		return nil, err
	}
	no, yes, port := false, true, int32(10248)
	k := kubeletv1.KubeletConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: kubeletv1.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		Authentication: kubeletv1.KubeletAuthentication{
			Anonymous: kubeletv1.KubeletAnonymousAuthentication{Enabled: &no},
			Webhook:   kubeletv1.KubeletWebhookAuthentication{Enabled: &yes},
			X509:      kubeletv1.KubeletX509Authentication{ClientCAFile: pkiDir + "/ca.crt"},
		},
		Authorization:      kubeletv1.KubeletAuthorization{Mode: kubeletv1.KubeletAuthorizationModeWebhook},
		CgroupDriver:       "systemd",
		ClusterDNS:         []string{dns.String()},
		ClusterDomain:      c.Spec.Network.DNSDomain,
		FeatureGates:       maps.Clone(c.Spec.FeatureGates),
		HealthzBindAddress: "127.0.0.1",
		HealthzPort:        &port,
		StaticPodPath:      ManifestDir,
	}
	if err := overlay(c.Spec.Kubelet, &k); err != nil {
		return nil, fmt.Errorf("spec.kubelet: %w", err)
	}
	k.RotateCertificates = true // whatever the user says, as kubeadm: a kubelet that lets its certificate expire is lost
	return yaml.Marshal(k)
}

// overlay decodes the user's fields over the defaults. An unknown field is an error that names its path.
func overlay(fields map[string]any, defaults any) error {
	b, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	unknown, err := kjson.UnmarshalStrict(b, defaults)
	if err == nil && len(unknown) > 0 {
		err = unknown[0]
	}
	return err
}

// DNSAddress is the cluster's DNS service: the tenth address of the first service range.
func DNSAddress(c *config.Cluster) (netip.Addr, error) {
	ranges := c.Spec.Network.ServiceRanges()
	if len(ranges) == 0 {
		return netip.Addr{}, fmt.Errorf("spec.network.serviceCIDR: %q is no range", c.Spec.Network.ServiceCIDR)
	}
	services := ranges[0]
	address := services.Addr()
	for range 10 {
		address = address.Next()
	}
	if !services.Contains(address) {
		return netip.Addr{}, fmt.Errorf("spec.network.serviceCIDR: %s has no tenth address, which DNS takes", services)
	}
	return address, nil
}

// Kubelet is what the kubelet of a node reads when it starts: the configuration (that of the
// cluster, from [KubeletConfiguration] or kube-system/kubelet-config, made the node's own), and its flags.
func Kubelet(c *config.Cluster, n config.Node, f config.Facts, configuration []byte, p Patches) ([]host.File, error) {
	if f.Resolved {
		var set struct {
			ResolvConf *string `json:"resolvConf"`
		}
		if err := yaml.Unmarshal(configuration, &set); err != nil {
			return nil, fmt.Errorf("kubelet configuration: %w", err)
		}
		if set.ResolvConf == nil {
			var err error
			if configuration, err = mergeField(configuration, "resolvConf", resolvedConf); err != nil {
				return nil, fmt.Errorf("kubelet configuration: %w", err)
			}
		}
	}
	configuration, err := p.Apply(KubeletConfigurationTarget, configuration)
	if err != nil {
		return nil, err
	}
	// Last, as kubeadm's upgrade does it: the instance's file is applied over the patches.
	configuration, err = mergeField(configuration, "containerRuntimeEndpoint", c.Socket(n))
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	instance := fmt.Sprintf("containerRuntimeEndpoint: %q\n", c.Socket(n))
	if driver, err := CgroupDriver(configuration); err != nil {
		return nil, err
	} else if f.CgroupDriver != "" && f.CgroupDriver != driver {
		// The kubelet asks the runtime itself, since 1.34; who reads the file should see the same.
		if configuration, err = mergeField(configuration, "cgroupDriver", f.CgroupDriver); err != nil {
			return nil, fmt.Errorf("kubelet configuration: %w", err)
		}
		instance += fmt.Sprintf("cgroupDriver: %q\n", f.CgroupDriver)
	}
	if n.ProviderID != "" {
		if configuration, err = mergeField(configuration, "providerID", n.ProviderID); err != nil {
			return nil, fmt.Errorf("kubelet configuration: %w", err)
		}
		instance += fmt.Sprintf("providerID: %q\n", n.ProviderID)
	}
	env := fmt.Sprintf("KUBELET_KUBEADM_ARGS=%q\n", strings.Join(kubeletFlags(c, n, f), " "))
	return []host.File{
		manifestDir(), // workers have none otherwise, and the kubelet complains every 20 s
		{Path: KubeletConfig, Content: host.Bytes(configuration)},
		{Path: KubeletInstance, Content: host.Text(instance)},
		{Path: KubeletFlags, Content: host.Text(env)},
	}, nil
}

// CgroupDriver is what a kubelet configuration names; empty where it names none.
func CgroupDriver(configuration []byte) (string, error) {
	var set struct {
		CgroupDriver string `json:"cgroupDriver"`
	}
	if err := yaml.Unmarshal(configuration, &set); err != nil {
		return "", fmt.Errorf("kubelet configuration: %w", err)
	}
	return set.CgroupDriver, nil
}

// mergeField sets one field of a YAML document and leaves all others, known or not.
func mergeField(doc []byte, name, value string) ([]byte, error) {
	asJSON, err := yaml.YAMLToJSON(doc)
	if err != nil {
		return nil, err
	}
	field, err := json.Marshal(map[string]string{name: value})
	if err != nil {
		return nil, err
	}
	if asJSON, err = jsonpatch.MergePatch(asJSON, field); err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(asJSON)
}

// kubeletFlags are what a configuration file cannot say.
func kubeletFlags(c *config.Cluster, n config.Node, f config.Facts) []string {
	defaults := map[string]string{}
	// By itself it takes an IPv4 address if it finds one, and never two.
	if ips := n.IPs(); len(ips) > 1 && c.Spec.Network.DualStack() {
		defaults["node-ip"] = ips[0].String() + "," + ips[1].String()
	} else if len(ips) > 0 && (c.Spec.Network.IPv6() || c.ExternalCloud()) {
		// With a cloud to say it, it takes none, and what runs on the host's network waits for one, that controller as well.
		defaults["node-ip"] = ips[0].String()
	}
	if n.Name != strings.ToLower(f.Hostname) {
		defaults["hostname-override"] = n.Name
	}
	// A control plane is tainted and labelled through the API by mark-control-plane, as by
	// kubeadm; a worker's taints must be there before its first pod.
	if !n.Has(config.ControlPlaneRole) && len(n.Taints) > 0 {
		var taints []string
		for _, t := range n.Taints {
			taints = append(taints, t.ToString())
		}
		defaults["register-with-taints"] = strings.Join(taints, ",")
	}
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(n.Labels)) {
		if KubeletMaySet(key) {
			labels = append(labels, key+"="+n.Labels[key])
		}
	}
	if len(labels) > 0 {
		defaults["node-labels"] = strings.Join(labels, ",")
	}
	args := n.KubeletArgs
	if c.ExternalCloud() { // where kubeadm, which knows nothing of it, has it; what comes later counts
		args = append([]config.Arg{{Name: "cloud-provider", Value: "external"}}, args...)
	}
	return Flags(defaults, args)
}

// KubeletMaySet tells whether a kubelet may put this label on its own Node. It refuses to
// start with any other (node-role.kubernetes.io/..., say): those are set through the API.
func KubeletMaySet(label string) bool {
	namespace, _, found := strings.Cut(label, "/")
	if !found {
		return true
	}
	for _, reserved := range []string{"kubernetes.io", "k8s.io"} {
		if namespace == reserved || strings.HasSuffix(namespace, "."+reserved) {
			return kubeletapis.IsKubeletLabel(label)
		}
	}
	return true
}
