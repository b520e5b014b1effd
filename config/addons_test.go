package config

import (
	"strings"
	"testing"
)

func TestAddonsAreRefusedWithWhatToWriteInstead(t *testing.T) {
	for name, tt := range map[string]struct{ spec, want string }{
		"all":               {"network: {cni: {name: calico}}, addons: {metricsServer: true, localPath: true, ingress: traefik, defaultDeny: [shop, pay]}", ""},
		"another ingress":   {"addons: {ingress: nginx}", `spec.addons.ingress: "nginx" is unknown: write one of traefik`},
		"no namespace":      {"network: {cni: {name: calico}}, addons: {defaultDeny: [Shop]}", "spec.addons.defaultDeny[0]: "},
		"the cluster's":     {"network: {cni: {name: calico}}, addons: {defaultDeny: [kube-system]}", "spec.addons.defaultDeny[0]: kube-system is the cluster's own"},
		"twice":             {"network: {cni: {name: calico}}, addons: {defaultDeny: [a, b, a]}", "spec.addons.defaultDeny[2]: a is there twice: leave one out"},
		"nobody heeds it":   {"addons: {defaultDeny: [shop]}", "spec.addons.defaultDeny: flannel heeds no NetworkPolicy"},
		"a cloud":           {"addons: {cloudController: {name: aws, extraArgs: [{name: v, value: '4'}], extraEnvs: [{name: AWS_EC2_METADATA_DISABLED, value: 'true'}]}, ebsCSI: true}", ""},
		"two defaults":      {"addons: {localPath: true, ebsCSI: true}", "spec.addons: localPath and ebsCSI both bring a default StorageClass"},
		"no cloud at all":   {"provider: {name: kind}, addons: {ebsCSI: true}", "spec.addons: cloudController and ebsCSI are for machines of a cloud"},
		"another cloud":     {"addons: {cloudController: {name: azure}}", `spec.addons.cloudController.name: "azure" is unknown: write one of aws`},
		"of no cloud":       {"addons: {cloudController: {extraArgs: [{name: v, value: '4'}]}}", "spec.addons.cloudController.name: is missing: write one of aws"},
		"its arguments":     {"addons: {cloudController: {name: aws, extraArgs: [{name: --v, value: '4'}]}}", "spec.addons.cloudController.extraArgs[0].name: "},
		"a cloud of IPv6":   {"network: {podCIDR: 'fd00:10:244::/56', serviceCIDR: 'fd00:10:96::/112'}, addons: {cloudController: {name: aws}}", "spec.addons.cloudController: aws takes the IPv4 addresses"},
		"IPv6, configured":  {"network: {podCIDR: 'fd00:10:244::/56', serviceCIDR: 'fd00:10:96::/112'}, addons: {cloudController: {name: aws, extraArgs: [{name: cloud-config, value: /etc/cloud.conf}]}}", ""},
		"a machine's id":    {"hosts: [{name: w-1, providerID: 'aws:///eu-west-1a/i-0123456789abcdef0'}]", ""},
		"no machine's id":   {"hosts: [{name: w-1, providerID: i-0123456789abcdef0}]", `spec.hosts[0].providerID: "i-0123456789abcdef0": write what the cloud calls the machine`},
		"somebody else may": {"network: {cni: {name: none}}, addons: {defaultDeny: [shop]}", ""},
	} {
		err := document(t, "spec: {"+tt.spec+"}").Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}
