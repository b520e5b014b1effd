package addons

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubewright/kubewright/config"
)

// The driver is asked for its health at this port, which the controller has of its host.
const ebsHealth = 9808

// ebsControllerPod makes, attaches and resizes volumes. The driver itself may run anywhere as often as one likes: its three
// companions choose one of them each.
func ebsControllerPod(c *config.Cluster, account string) corev1.PodSpec {
	const dir = "/var/lib/csi/sockets/pluginproxy"
	mounts := []corev1.VolumeMount{{Name: "socket-dir", MountPath: dir}}
	companion := func(name, image string, args ...string) corev1.Container {
		args = append([]string{"--csi-address=" + dir + "/csi.sock", "--timeout=60s", "--leader-election=true", "--v=2"}, args...)
		return ebsContainer(name, image, mounts, nil, args...)
	}
	plugin := ebsContainer("ebs-plugin", ebsImage, mounts, nil,
		"controller", "--endpoint=unix://"+dir+"/csi.sock", "--k8s-tag-cluster-id="+c.Metadata.Name, "--extra-tags=kubewright.dev/cluster="+c.Metadata.Name, "--batching=true", "--logging-format=text", "--v=2")
	plugin.Env = []corev1.EnvVar{fieldEnv("CSI_NODE_NAME", "spec.nodeName")}
	plugin.LivenessProbe = ebsProbe("127.0.0.1")
	return corev1.PodSpec{
		PriorityClassName:  "system-cluster-critical",
		HostNetwork:        true,
		DNSPolicy:          corev1.DNSDefault,
		ServiceAccountName: account,
		NodeSelector:       map[string]string{"node-role.kubernetes.io/control-plane": ""},
		Tolerations:        []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		Affinity:           said(),
		SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: new(int64(1000)), RunAsGroup: new(int64(1000)), FSGroup: new(int64(1000)),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		Containers: []corev1.Container{
			plugin,
			companion("csi-provisioner", ebsProvisionerImage, "--feature-gates=Topology=true", "--extra-create-metadata", "--default-fstype=ext4"),
			companion("csi-attacher", ebsAttacherImage),
			companion("csi-resizer", ebsResizerImage, "--handle-volume-inuse-error=false"),
			ebsContainer("liveness-probe", ebsLivenessImage, mounts, nil, "--csi-address="+dir+"/csi.sock", "--http-endpoint=127.0.0.1:9808"),
		},
		Volumes: []corev1.Volume{scratch("socket-dir")},
	}
}

// ebsNodePod formats and mounts what is attached to its node.
func ebsNodePod(account string) corev1.PodSpec {
	const kubelet = "/var/lib/kubelet"
	const dir = kubelet + "/plugins/" + ebsDriver
	both := corev1.MountPropagationBidirectional // mounts are for other pods
	plugins := []corev1.VolumeMount{{Name: "plugin-dir", MountPath: "/csi"}}
	plugin := ebsContainer("ebs-plugin", ebsImage, append([]corev1.VolumeMount{
		{Name: "kubelet-dir", MountPath: kubelet, MountPropagation: &both}, {Name: "device-dir", MountPath: "/dev"},
	}, plugins...), &corev1.SecurityContext{Privileged: new(true), ReadOnlyRootFilesystem: new(true)},
		"node", "--endpoint=unix:///csi/csi.sock", "--logging-format=text", "--v=2")
	plugin.Env = []corev1.EnvVar{fieldEnv("CSI_NODE_NAME", "spec.nodeName"),
		{Name: "AWS_EC2_METADATA_DISABLED", Value: "true"}} // the Node says all that it needs
	plugin.Ports = []corev1.ContainerPort{{Name: "healthz", ContainerPort: ebsHealth, Protocol: corev1.ProtocolTCP}}
	plugin.LivenessProbe = ebsProbe("")
	plugin.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/aws-ebs-csi-driver", "pre-stop-hook"}}}}
	registrar := ebsContainer("node-driver-registrar", ebsRegistrarImage, append([]corev1.VolumeMount{
		{Name: "registration-dir", MountPath: "/registration"}, {Name: "probe-dir", MountPath: dir + "/"},
	}, plugins...), nil, "--csi-address=/csi/csi.sock", "--kubelet-registration-path="+dir+"/csi.sock", "--v=2")
	return corev1.PodSpec{
		PriorityClassName:  "system-node-critical",
		ServiceAccountName: account,
		NodeSelector:       map[string]string{corev1.LabelOSStable: "linux"},
		Tolerations:        []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		Affinity:           said(),
		SecurityContext:    &corev1.PodSecurityContext{RunAsUser: new(int64(0)), RunAsGroup: new(int64(0)), FSGroup: new(int64(0))},
		Containers: []corev1.Container{plugin, registrar,
			ebsContainer("liveness-probe", ebsLivenessImage, plugins, nil, "--csi-address=/csi/csi.sock")},
		Volumes: []corev1.Volume{
			hostVolume("kubelet-dir", kubelet, corev1.HostPathDirectory),
			hostVolume("plugin-dir", dir+"/", corev1.HostPathDirectoryOrCreate),
			hostVolume("registration-dir", kubelet+"/plugins_registry/", corev1.HostPathDirectory),
			hostVolume("device-dir", "/dev", corev1.HostPathDirectory),
			scratch("probe-dir"),
		},
	}
}

// said keeps pods off nodes of which the cloud controller has not said yet what they are: the driver would end there, again and again.
func said() *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpExists},
		}}},
	}}}
}

func ebsContainer(name, image string, mounts []corev1.VolumeMount, security *corev1.SecurityContext, args ...string) corev1.Container {
	if security == nil {
		security = &corev1.SecurityContext{ReadOnlyRootFilesystem: new(true), AllowPrivilegeEscalation: new(false)}
	}
	return corev1.Container{
		Name: name, Image: image, ImagePullPolicy: corev1.PullIfNotPresent, Args: args, VolumeMounts: mounts, SecurityContext: security,
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("40Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
		},
	}
}

func ebsProbe(host string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:        corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: host, Path: "/healthz", Port: intstr.FromInt32(ebsHealth), Scheme: corev1.URISchemeHTTP}},
		InitialDelaySeconds: 10, TimeoutSeconds: 3, PeriodSeconds: 10, FailureThreshold: 5,
	}
}
