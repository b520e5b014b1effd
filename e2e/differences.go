// Package e2e tests real clusters: on hosts of package lab, made by kubewright and by the real
// kubeadm.
package e2e

import (
	"github.com/kubewright/kubewright/addons"
)

// Difference is a place where a cluster of ours is meant to differ from one that the real
// kubeadm (and, for flannel, its own manifest) makes of the same wish.
type Difference struct {
	Where string // path of a file, or kind and namespace/name of an object; a pattern of path.Match
	Field string // what differs, with all that is below; "exists" for a whole file or object
	Why   string
}

// Differences are all of them. The test against the real kubeadm holds us to the list, both ways.
func Differences() []Difference {
	var list []Difference
	for _, d := range addons.Differences() {
		_ = d
	}
	return list
}
