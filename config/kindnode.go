package config

import (
	"fmt"
	"slices"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
)

// Misfits are what no container can be made of, each with its path, which begins with the one given.
func (n KindNode) Misfits(path string) (all []error) {
	for i, m := range n.ExtraMounts {
		if !slices.Contains([]v1alpha4.MountPropagation{"", v1alpha4.MountPropagationNone, v1alpha4.MountPropagationHostToContainer, v1alpha4.MountPropagationBidirectional}, m.Propagation) {
			all = append(all, fmt.Errorf("%s.extraMounts[%d].propagation: %q: write None, HostToContainer or Bidirectional", path, i, m.Propagation))
		}
		if m.HostPath == "" || m.ContainerPath == "" {
			all = append(all, fmt.Errorf("%s.extraMounts[%d]: write both hostPath and containerPath", path, i))
		}
	}
	for i, m := range n.ExtraPortMappings {
		at := fmt.Sprintf("%s.extraPortMappings[%d]", path, i)
		if !slices.Contains([]v1alpha4.PortMappingProtocol{"", v1alpha4.PortMappingProtocolTCP, v1alpha4.PortMappingProtocolUDP, v1alpha4.PortMappingProtocolSCTP}, m.Protocol) {
			all = append(all, fmt.Errorf("%s.protocol: %q: write TCP, UDP or SCTP", at, m.Protocol))
		}
		if m.ContainerPort < 1 || m.ContainerPort > 65535 {
			all = append(all, fmt.Errorf("%s.containerPort: %d is not a port: write a number from 1 to 65535", at, m.ContainerPort))
		}
		if m.HostPort < -1 || m.HostPort > 65535 {
			all = append(all, fmt.Errorf("%s.hostPort: %d is not a port: write a number from 1 to 65535, or leave it out for one that is free", at, m.HostPort))
		}
	}
	return all
}
