package aws

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/cloud"
)

// What gets in where, for each pod network: a line for each rule, with its reason.
func TestRulesEqualGoldens(t *testing.T) {
	start(t, cloud.Options{})
	for name, change := range map[string]func(*config.Spec){
		"flannel-vxlan":      func(*config.Spec) {},
		"flannel-wireguard":  func(s *config.Spec) { s.Network.CNI.Flannel.Backend = "wireguard" },
		"flannel-host-gw":    func(s *config.Spec) { s.Network.CNI.Flannel.Backend = "host-gw" },
		"calico-vxlan":       func(s *config.Spec) { s.Network.CNI.Name = "calico" },
		"calico-ipip":        func(s *config.Spec) { s.Network.CNI.Name, s.Network.CNI.Calico.Encapsulation = "calico", "ipip" },
		"weave":              func(s *config.Spec) { s.Network.CNI.Name = "weave" },
		"metrics-no-bastion": func(s *config.Spec) { s.Addons.MetricsServer = true; s.Provider.AWS.SSH.Bastion = "none" },
	} {
		t.Run(name, func(t *testing.T) {
			d := parse(t, small)
			change(&d.Spec)
			a := connect(t, d)
			w, err := a.network(t.Context(), a.look(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, r := range a.rules(w) {
				lines = append(lines, fmt.Sprintf("%-13s from %-13s %-15s %s", r.Group, r.From, portsOf(r.Protocol, r.Low, r.High), r.Why))
				if r.Protocol == "-1" && !a.unencapsulated() {
					t.Errorf("%v lets everything in", r)
				}
				if r.From == "0.0.0.0/0" && (r.Group == nodesGroup || r.Group == controlPlaneGroup) {
					t.Errorf("%v lets everybody reach nodes", r)
				}
			}
			slices.Sort(lines)
			if n := len(lines); n != len(slices.Compact(slices.Clone(lines))) {
				t.Error("a rule is there twice")
			}
			golden(t, "rules-"+name, strings.Join(lines, "\n")+"\n")
		})
	}
}
