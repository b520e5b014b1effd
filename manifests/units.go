package manifests

import (
	"fmt"

	"github.com/kubewright/kubewright/host"
)

// KubeletBinary is where the kubelet is when nobody says otherwise.
const KubeletBinary = "/usr/local/bin/kubelet"

// KubeletUnit is the systemd unit and kubeadm's drop-in. Binary is the path of the kubelet
// to run; empty means [KubeletBinary]. Nothing in them depends on the cluster, so they can be
// written, and enabled, long before the kubelet has anything to read.
func KubeletUnit(binary string) []host.File {
	if binary == "" {
		binary = KubeletBinary
	}
	return []host.File{
		{Path: "/etc/systemd/system/kubelet.service", Content: host.Text(fmt.Sprintf(kubeletUnit, binary))},
		{Path: "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", Content: host.Text(fmt.Sprintf(kubeletDropIn, binary))},
	}
}

// The conditions are what the packaged unit lacks: without a configuration, or a kubeconfig
// of one kind or the other, the kubelet could only crash, again and again.
const kubeletUnit = `[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target containerd.service crio.service cri-docker.service
ConditionPathExists=` + KubeletConfig + `
ConditionPathExists=|` + kubeletKubeconfig + `
ConditionPathExists=|` + bootstrapKubeconfig + `

[Service]
# A connection to an API server that has vanished without a word ends after 10 s, not 45: after 40 s the node would be lost.
Environment=HTTP2_READ_IDLE_TIMEOUT_SECONDS=5 HTTP2_PING_TIMEOUT_SECONDS=5
ExecStart=%s
Restart=always
StartLimitInterval=0
RestartSec=1

[Install]
WantedBy=multi-user.target
`

// As in kubeadm's packages, whose upgrades and documents count on these variables.
const kubeletDropIn = `[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=` + bootstrapKubeconfig + ` --kubeconfig=` + kubeletKubeconfig + `"
Environment="KUBELET_CONFIG_ARGS=--config=` + KubeletConfig + `"
# Written by init and join.
EnvironmentFile=-` + KubeletFlags + `
# KUBELET_EXTRA_ARGS of the administrator, in the file of Debian's or Red Hat's packages.
EnvironmentFile=-/etc/default/kubelet
EnvironmentFile=-/etc/sysconfig/kubelet
ExecStart=
ExecStart=%s $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
`
