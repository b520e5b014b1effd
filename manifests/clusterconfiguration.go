package manifests

import (
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/config/kubeadm"
)

// ClusterConfiguration is key ClusterConfiguration of kube-system/kubeadm-config, from which
// kubeadm's join and upgrade compute the same static pods: see [kubeadm.ClusterConfiguration].
func ClusterConfiguration(c *config.Cluster) ([]byte, error) {
	own := *c
	s := &own.Spec
	s.APIServer.ExtraArgs = extraArgs(c, s.APIServer.ExtraArgs)
	s.ControllerManager.ExtraArgs = controllerManagerArgs(c)
	s.Scheduler.ExtraArgs = extraArgs(c, s.Scheduler.ExtraArgs)
	return kubeadm.ClusterConfiguration(&own)
}
