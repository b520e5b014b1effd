package config

import "strings"

// InternalDomain ends the names that only the hosts of a cluster know.
const InternalDomain = ".kubewright.internal"

// InternalEndpoint is the cluster's address, if that is a name which each host maps to itself.
func (c *Cluster) InternalEndpoint() (name string, ok bool) {
	host, _, err := SplitEndpoint(c.Spec.ControlPlane.Endpoint, c.Spec.ControlPlane.BindPort)
	return host, err == nil && strings.HasSuffix(host, InternalDomain)
}
