// Package providers is where machines come from. In goes a wish for machines; out come
// machines, each with the door through which phases act on it.
//
// The machine that we run on is for init and join; up takes those that are there, behind SSH
// (hosts.go), has kind make containers (kind.go), or makes instances in EC2 (aws).
package providers

import "github.com/kubewright/kubewright/host"

// Machine is a host, and its name in whatever made it.
type Machine struct {
	Name string
	Host host.Host
}

// Local is the machine that we run on. It was there before us and is never deleted.
func Local() Machine { return Machine{Name: "localhost", Host: host.Local{}} }
