// Package providers is where machines come from. In goes a wish for machines; out come
// machines, each with the door through which phases act on it.
//
// There is one so far: the machine that we run on, for init and join. Machines behind
// SSH, kind's containers and EC2's instances will each be a file here.
package providers

import "github.com/kubewright/kubewright/host"

// Machine is a host, and its name in whatever made it.
type Machine struct {
	Name string
	Host host.Host
}

// Local is the machine that we run on. It was there before us and is never deleted.
func Local() Machine { return Machine{Name: "localhost", Host: host.Local{}} }
