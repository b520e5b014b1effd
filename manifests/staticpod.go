package manifests

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// Live is what a static pod depends on and no document says. The zero value is right for
// the first control plane of a cluster that signs its own certificates.
type Live struct {
	// EtcdMembers are all members as NAME=PEERURL, this one included, when it joins others.
	// Empty: it is the first, or there is a manifest already, whose initial cluster is kept.
	EtcdMembers []string
	// ExternalCA: ca.key is not on the host, so the controller manager signs nothing.
	ExternalCA bool
}

// StaticPods are the manifests of a control plane, in the order of [Wanted].
func StaticPods(c *config.Cluster, n config.Node, f config.Facts, p Patches, l Live) ([]host.File, error) {
	files := []host.File{manifestDir()}
	for _, name := range Wanted(c) {
		file, err := StaticPod(name, c, n, f, p, l)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// StaticPod is the manifest of one of [Names].
func StaticPod(name string, c *config.Cluster, n config.Node, f config.Facts, p Patches, l Live) (host.File, error) {
	b, err := manifest(name, c, n, f, p, l)
	if err != nil {
		return host.File{}, fmt.Errorf("static pod %s: %w", name, err)
	}
	return host.File{Path: Path(name), Mode: 0o600, Content: host.Bytes(b)}, nil
}

func manifest(name string, c *config.Cluster, n config.Node, f config.Facts, p Patches, l Live) ([]byte, error) {
	address, err := netip.ParseAddr(n.Address)
	if err != nil {
		return nil, fmt.Errorf("node %q has no usable address (%q): set it in spec.hosts[].address", n.Name, n.Address)
	}
	var comp component
	switch name {
	case Etcd:
		comp = etcd(c, n, address, l.EtcdMembers)
	case APIServer:
		comp = apiServer(c, address, f.TrustDirs)
	case ControllerManager:
		comp = controllerManager(c, f.TrustDirs, l.ExternalCA)
	case Scheduler:
		comp = scheduler(c)
	default:
		return nil, fmt.Errorf("unknown: one of %s", strings.Join(Names(), ", "))
	}
	comp.name, comp.image = name, Image(c, name)
	comp.startup = c.Spec.Timeouts.ControlPlaneComponentHealthCheck.Duration

	plain, err := yaml.Marshal(comp.pod())
	if err != nil {
		return nil, err
	}
	return patchPod(name, plain, p)
}

// patchPod applies the patches and reads the result back, so that a field that is no
// field of a pod is an error here and not a flag or mount that is silently absent.
func patchPod(name string, plain []byte, p Patches) ([]byte, error) {
	patched, err := p.Apply(name, plain)
	if err != nil {
		return nil, err
	}
	asJSON, err := yaml.YAMLToJSON(patched)
	if err != nil {
		return nil, err
	}
	var pod corev1.Pod
	unknown, err := kjson.UnmarshalStrict(asJSON, &pod)
	if err != nil {
		return nil, fmt.Errorf("after the patches it is no pod: %w", err)
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("after the patches it is no pod: %w", unknown[0])
	}
	return yaml.Marshal(pod)
}

func manifestDir() host.File { return host.File{Path: ManifestDir, Dir: true, Mode: 0o700} }

// component is what differs between the static pods.
type component struct {
	name, image string
	command     []string
	cpu, memory string // requests
	env         []corev1.EnvVar
	mounts      []config.HostPath // in the order of kubeadm's
	annotations map[string]string
	probe       probe
	startup     time.Duration // that it may take to come up
}

// probe is how the kubelet asks a component for its health over HTTP.
type probe struct {
	host                 string
	port                 int32
	scheme               corev1.URIScheme
	live, ready, startup string // paths; no readiness probe where empty
}

// pod is the component as a static pod, with the values that all of kubeadm's share.
func (c component) pod() corev1.Pod {
	priority := int32(2000001000) // of system-node-critical; static pods get none from admission
	requests := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(c.cpu)}
	if c.memory != "" {
		requests[corev1.ResourceMemory] = resource.MustParse(c.memory)
	}
	// As many periods as it takes to fill the time that it may need.
	failures := int32(math.Ceil(c.startup.Seconds() / 10))
	container := corev1.Container{
		Name:            c.name,
		Image:           c.image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Command:         append([]string{c.name}, c.command...),
		Env:             byName(c.env, func(v corev1.EnvVar) string { return v.Name }),
		VolumeMounts:    Mounts(c.mounts),
		LivenessProbe:   c.probe.get(c.probe.live, 10, 8, 10),
		ReadinessProbe:  c.probe.get(c.probe.ready, 0, 3, 1),
		StartupProbe:    c.probe.get(c.probe.startup, 10, failures, 10),
		Resources:       corev1.ResourceRequirements{Requests: requests},
		Ports:           []corev1.ContainerPort{{Name: "probe-port", ContainerPort: c.probe.port, Protocol: corev1.ProtocolTCP}},
	}
	return corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name:        c.name,
			Namespace:   metav1.NamespaceSystem,
			Labels:      map[string]string{"component": c.name, "tier": "control-plane"},
			Annotations: c.annotations,
		},
		Spec: corev1.PodSpec{
			Containers:        []corev1.Container{container},
			Priority:          &priority,
			PriorityClassName: "system-node-critical",
			HostNetwork:       true,
			Volumes:           Volumes(c.mounts),
			SecurityContext: &corev1.PodSecurityContext{
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
		},
	}
}

func (p probe) get(path string, delay, failures, period int32) *corev1.Probe {
	if path == "" {
		return nil
	}
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Host: p.host, Path: path, Port: intstr.FromString("probe-port"), Scheme: p.scheme,
		}},
		InitialDelaySeconds: delay, TimeoutSeconds: 15, FailureThreshold: failures, PeriodSeconds: period,
	}
}

// probeHost is where a component that listens on addr is asked. A wildcard is no address
// to connect to: empty lets the kubelet take the pod's (kubernetes#86504).
func probeHost(addr string) string {
	if addr == "0.0.0.0" || addr == "::" {
		return ""
	}
	return addr
}

// Volumes are directories and files of the host, as a pod names them.
func Volumes(paths []config.HostPath) []corev1.Volume {
	var volumes []corev1.Volume
	for _, p := range mountPaths(paths) {
		volumes = append(volumes, corev1.Volume{Name: p.Name, VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: p.HostPath, Type: &p.PathType},
		}})
	}
	return volumes
}

// Mounts are those of [Volumes] in a container.
func Mounts(paths []config.HostPath) []corev1.VolumeMount {
	var mounts []corev1.VolumeMount
	for _, p := range paths {
		mounts = append(mounts, corev1.VolumeMount{Name: p.Name, MountPath: p.MountPath, ReadOnly: p.ReadOnly})
	}
	return mounts
}

// byName sorts by name; of the same name the last one counts, so users override ours.
func byName[T any](all []T, name func(T) string) []T {
	last := map[string]T{}
	for _, v := range all {
		last[name(v)] = v
	}
	var sorted []T
	for _, n := range slices.Sorted(maps.Keys(last)) {
		sorted = append(sorted, last[n])
	}
	return sorted
}
