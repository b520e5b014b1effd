package addons

import (
	"net/url"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/config"
)

// startFlanneld runs flanneld with its arguments. A subnet.env without a CNI configuration is
// of an earlier life of the host, which ended in a reset: installConf must not believe it. (A
// configuration without subnet.env is one after a reboot: it stays, as the kubelet has seen
// it and would take its absence for a broken node.)
const startFlanneld = `[ -s /etc/cni/net.d/10-flannel.conflist ] || rm -f /run/flannel/subnet.env
exec /opt/bin/flanneld "$@"
`

// installConf makes the node able to run pods, once flanneld has written which addresses they may have. It gives the first
// address of each range, and the range begins one before. Flanneld that gets nowhere in a minute is started anew, and the pod has an event
// FailedPostStartHook; if flanneld exits earlier, the hook ends with its container.
const installConf = `to=/etc/cni/net.d/10-flannel.conflist
install() {
  . /run/flannel/subnet.env
  if [ -n "$FLANNEL_SUBNET" ]; then
    first=${FLANNEL_SUBNET%/*}
    ranges="[{\"subnet\": \"${first%.*}.$((${first##*.} - 1))/${FLANNEL_SUBNET#*/}\"}]"
    routes="{\"dst\": \"$FLANNEL_NETWORK\"}"
  fi
  if [ -n "$FLANNEL_IPV6_SUBNET" ]; then
    first=${FLANNEL_IPV6_SUBNET%/*}
    ranges="${ranges:+$ranges, }[{\"subnet\": \"${first%:*}:$(printf %x $((0x${first##*:} - 1)))/${FLANNEL_IPV6_SUBNET#*/}\"}]"
    routes="${routes:+$routes, }{\"dst\": \"$FLANNEL_IPV6_NETWORK\"}"
  fi
  conf=$(while IFS= read -r line; do
    case $line in
      *RANGES*) line=${line%RANGES*}$ranges${line##*RANGES} ;;
      *ROUTES*) line=${line%ROUTES*}$routes${line##*ROUTES} ;;
      *MTU*) line=${line%MTU*}$FLANNEL_MTU${line##*MTU} ;;
    esac
    printf '%s\n' "$line"
  done </etc/kube-flannel/cni-conf.json)
  printf '%s\n' "$conf" >$to.new && mv $to.new $to
}
for i in $(seq 600); do
  if [ -s /run/flannel/subnet.env ]; then
    install
    exit
  fi
  sleep 0.1
done
echo "flanneld has not written /run/flannel/subnet.env within a minute: see the log of container kube-flannel"
exit 1
`

func flannelDaemonSet(c *config.Cluster, api *url.URL, configuration *corev1.ConfigMap) *appsv1.DaemonSet {
	labels := map[string]string{"tier": "node", "app": "flannel"}
	return &appsv1.DaemonSet{
		ObjectMeta: labelled(kubeFlannel, "kube-flannel-ds", map[string]string{"tier": "node", "app": "flannel", "k8s-app": "flannel"}),
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "flannel"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: digestOf(configuration)},
				Spec: corev1.PodSpec{
					Affinity:           onLinux(),
					HostNetwork:        true,
					PriorityClassName:  "system-node-critical",
					Tolerations:        []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}},
					ServiceAccountName: "flannel",
					Containers:         []corev1.Container{flanneld(c, api)},
					Volumes: []corev1.Volume{
						hostVolume("run", "/run/flannel", ""),
						hostVolume("cni", "/etc/cni/net.d", ""),
						configMapVolume("flannel-cfg", "kube-flannel-cfg"),
						hostVolume("xtables-lock", "/run/xtables.lock", corev1.HostPathFileOrCreate),
					},
				},
			},
		},
	}
}

func flanneld(c *config.Cluster, api *url.URL) corev1.Container {
	args := []string{"--ip-masq", "--kube-subnet-mgr", "--healthz-port=8081"}
	f := c.Spec.Network.CNI.Flannel
	for _, choice := range []struct{ flag, value string }{
		{"--iface=", f.Interface}, {"--iface-regex=", f.InterfaceRegex}, {"--iface-can-reach=", f.InterfaceCanReach},
	} {
		if choice.value != "" {
			args = append(args, choice.flag+choice.value)
		}
	}
	return corev1.Container{
		Name:    "kube-flannel",
		Image:   flannelImage(c),
		Command: []string{"sh", "-c", startFlanneld, "flanneld"},
		Args:    args,
		Ports:   []corev1.ContainerPort{{Name: "healthz", ContainerPort: 8081, Protocol: corev1.ProtocolTCP}},
		Lifecycle: &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{
			Exec: &corev1.ExecAction{Command: []string{"sh", "-c", installConf}},
		}},
		LivenessProbe:  &corev1.Probe{ProbeHandler: httpGet("/healthz", "healthz"), InitialDelaySeconds: 10, PeriodSeconds: 30},
		ReadinessProbe: &corev1.Probe{ProbeHandler: httpGet("/readyz", "healthz"), PeriodSeconds: 1, FailureThreshold: 30},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("100m"),
			corev1.ResourceMemory: resource.MustParse("50Mi"),
		}},
		SecurityContext: &corev1.SecurityContext{
			Privileged:   new(false),
			Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}},
		},
		Env: []corev1.EnvVar{
			fieldEnv("NODE_NAME", "spec.nodeName"),
			fieldEnv("POD_NAME", "metadata.name"),
			fieldEnv("POD_NAMESPACE", "metadata.namespace"),
			{Name: "KUBERNETES_SERVICE_HOST", Value: api.Hostname()},
			{Name: "KUBERNETES_SERVICE_PORT", Value: portOf(api)},
			{Name: "EVENT_QUEUE_DEPTH", Value: "5000"},
			{Name: "CONT_WHEN_CACHE_NOT_READY", Value: "false"},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "run", MountPath: "/run/flannel"},
			{Name: "cni", MountPath: "/etc/cni/net.d"},
			{Name: "flannel-cfg", MountPath: "/etc/kube-flannel/"},
			{Name: "xtables-lock", MountPath: "/run/xtables.lock"},
		},
	}
}

func onLinux() *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelOSStable, Operator: corev1.NodeSelectorOpIn, Values: []string{"linux"}}},
		}}},
	}}
}
