package config

import (
	"fmt"
	"strings"
	"testing"
)

func onAWS(t *testing.T, aws string) *Cluster {
	t.Helper()
	c, err := Parse([]byte("apiVersion: kubewright.dev/v1alpha1\nkind: Cluster\nmetadata: {name: prod}\nspec: {provider: {name: aws, aws: " + aws + "}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	c.Spec.Provider.AWS.Default()
	return c
}

func TestDefaultsOfAWS(t *testing.T) {
	a := onAWS(t, "{pools: [{name: w, count: 2}]}").Spec.Provider.AWS
	if a.Network.CIDR != "10.0.0.0/16" || a.Network.NAT != "single" || a.SSH.Bastion != "t4g.nano" || a.SSH.User != "ubuntu" || a.LoadBalancer.Scheme != "internet-facing" ||
		a.ControlPlane.Number() != 1 || a.ControlPlane.InstanceType != "t3.medium" || a.ControlPlane.DiskGiB != 40 || a.Pools[0].InstanceType != "t3.medium" || a.Pools[0].DiskGiB != 40 {
		t.Errorf("%+v", a)
	}
	for _, without := range []string{"{network: {nat: none}}", "{ssh: {proxyJump: me@192.0.2.1}}", "{network: {vpc: vpc-0a, subnets: [subnet-0a]}}"} {
		if a := onAWS(t, without).Spec.Provider.AWS; a.SSH.Bastion != "" {
			t.Errorf("%s has the bastion %s", without, a.SSH.Bastion)
		}
	}
	if a := onAWS(t, "{network: {vpc: vpc-0a, subnets: [subnet-0a]}}").Spec.Provider.AWS; a.Network.CIDR+a.Network.NAT != "" {
		t.Errorf("of a VPC that is there: %+v", a.Network)
	}
}

func TestWhatIsWrongWithAWS(t *testing.T) {
	for aws, want := range map[string]string{
		"{controlPlane: {count: 4}}": "controlPlane.count: 4",
		"{controlPlane: {count: 0}}": "controlPlane.count: 0: etcd wants an odd number, write 1, 3 or 5", "{pools: [{name: a}]}": "pools[0].count: there is none: write how many",
		"{network: {zones: [eu-west-1a, eu-west-1b, eu-west-1a]}}":                              "network.zones[2]: eu-west-1a is there twice: keep one",
		"{network: {vpc: vpc-0a, subnets: [subnet-0a, subnet-0a]}}":                             "network.subnets[1]: subnet-0a is there twice",
		"{network: {vpc: vpc-0a, subnets: [subnet-0a], publicSubnets: [subnet-0b, subnet-0b]}}": "network.publicSubnets[1]: subnet-0b is there twice",
		"{pools: [{name: a, count: 1, zones: [eu-west-1a, eu-west-1a]}]}":                       "pools[0].zones[1]: eu-west-1a is there twice",
		"{loadBalancer: {from: []}}":                                                            "loadBalancer.from: it is empty: write who may get in, or 0.0.0.0/0 if you mean everybody",
		"{ssh: {from: []}}":                                                                     "ssh.from: it is empty: write who",
		"{ssh: {from: [198.51.100.7/24]}}":                                                      "ssh.from[0]: \"198.51.100.7/24\" has bits set behind the mask: write 198.51.100.0/24",
		"{ssh: {from: [1.2.3.4]}}":                                                              "ssh.from[0]: \"1.2.3.4\" is no range: write 1.2.3.4/32",
		"{ssh: {from: ['2001:db8::/32']}}":                                                      "ssh.from[0]: \"2001:db8::/32\": write a range of IPv4, 192.0.2.0/24, say",
		"{region: 'Ireland!'}":                                                                  "aws.region: \"Ireland!\": write the name of a region, eu-west-1, say",
		"{region: eu-west-1a}":                                                                  "aws.region: eu-west-1a is a zone: write its region, eu-west-1",
		"{region: us-west-2-lax-1a}":                                                            "aws.region: us-west-2-lax-1a is a zone: write its region, us-west-2",
		"{pools: [{count: 1}]}":                                                                 "pools[0].name: there is none: write one",
		"{account: '12'}":                                                                       "account: \"12\": write the twelve digits",
		"{tags: {Name: a}}":                                                                     "tags.Name: is not yours to set", "{tags: {kubewright.dev/part: a}}": "tags.kubewright.dev/part: is not", "{tags: {kubernetes.io/cluster/b: owned}}": "tags.kubernetes.io/cluster/b: is not", "{tags: {AWS:x: a}}": "tags.AWS:x: is not",
		"{tags: {kubernetes.io/role/elb: '1'}}":                                     "tags.kubernetes.io/role/elb: is not",
		"{tags: {aws:x: a}}":                                                        "tags.aws:x: is not yours to set",
		"{network: {cidr: 10.0.0.0/8}}":                                             "network.cidr: \"10.0.0.0/8\"",
		"{network: {cidr: 10.0.0.0/21}}":                                            "of /16 to /20",
		"{network: {cidr: 10.244.0.0/16}}":                                          "overlap",
		"{network: {nat: two}}":                                                     "network.nat: \"two\"",
		"{network: {vpc: vpc-0a}}":                                                  "network.subnets: there is none",
		"{network: {vpc: mine, subnets: [subnet-0a]}}":                              "network.vpc: \"mine\"",
		"{network: {vpc: vpc-0a, subnets: [a]}}":                                    "network.subnets[0]: \"a\"",
		"{network: {vpc: vpc-0a, subnets: [subnet-0a], cidr: 10.0.0.0/16}}":         "network.cidr: is of a VPC that is made",
		"{network: {subnets: [subnet-0a]}}":                                         "name it, too, under vpc",
		"{loadBalancer: {scheme: public}}":                                          "loadBalancer.scheme: \"public\"",
		"{loadBalancer: {from: [192.0.2.1]}}":                                       "loadBalancer.from[0]: \"192.0.2.1\"",
		"{loadBalancer: {from: [192.0.2.0/24]}, network: {nat: none}}":              "scheme: internal",
		"{ssh: {keyName: mine}}":                                                    "keyName and identityFile go together",
		"{ssh: {bastion: t3.nano, proxyJump: me@192.0.2.1}}":                        "bastion and proxyJump",
		"{ssh: {bastion: t3.nano}, network: {nat: none}}":                           "ssh.bastion: it needs a public subnet",
		"{pools: [{name: a}, {name: a}]}":                                           "pools[1].name: \"a\" is taken",
		"{pools: [{name: bastion}]}":                                                "pools[0].name: \"bastion\" is taken",
		"{pools: [{name: a, count: -1}]}":                                           "pools[0].count: -1",
		"{pools: [{name: a, image: mine}]}":                                         "pools[0].image: \"mine\"",
		"{pools: [{name: a, diskGiB: 2}]}":                                          "pools[0].diskGiB: 2",
		"{pools: [{name: a, labels: {a/b/c: d}}]}":                                  "pools[0].labels.a/b/c",
		"{pools: [{name: a, taints: [{key: a, effect: Never}]}]}":                   "pools[0].taints[0].effect: \"Never\"",
		"{network: {zones: [eu-west-1a]}, pools: [{name: a, zones: [eu-west-1b]}]}": "eu-west-1b is none of the network's",
	} {
		if err := onAWS(t, aws).ForeseeAWS(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error does not say %q: %v", aws, want, err)
		}
	}
	for _, region := range []string{"us-gov-west-1", "ap-southeast-4", "eusc-de-east-1", "us-isob-east-1"} {
		if err := onAWS(t, "{region: "+region+"}").ForeseeAWS(); err != nil {
			t.Errorf("%s: %v", region, err)
		}
	}
	for _, before := range []string{"{network: {cidr: 10.0.0.0/22}}", "{pools: [{name: a, labels: {a/b/c: d}}]}", "{tags: {kubernetes.io/role/elb: '1', kubernetes.io/role/internal-elb: '1', AWS:x: a, aWs:x: a, awS:x: a}}"} {
		if err := onAWS(t, before).ValidateAWS(); err != nil {
			t.Errorf("%s could not be ended: %v", before, err)
		}
	}
	if err := onAWS(t, "{controlPlane: {count: 3}, pools: [{name: w, count: 0}]}").ValidateAWS(); err != nil {
		t.Error(err)
	}
	c := onAWS(t, "{pools: [{name: w, count: 0}]}")
	if b, err := c.Print(); err != nil || !strings.Contains(string(b), "count: 0\n") || !strings.Contains(string(b), "count: 1\n") {
		t.Errorf("%s%v", b, err)
	}
	c.Spec.Hosts, c.Spec.ControlPlane.Endpoint, c.Metadata.Name = []Node{{Name: "a"}}, "a:6443", "A"
	nameless := onAWS(t, "{}")
	if nameless.Metadata.Name = ""; !strings.Contains(fmt.Sprint(nameless.ForeseeAWS()), "metadata.name: there is none: write one") {
		t.Error(nameless.ForeseeAWS())
	}
	for _, want := range []string{"spec.hosts: the hosts of provider aws are made", "spec.controlPlane.endpoint", "metadata.name"} {
		if err := c.ValidateAWS(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

func TestTheRestOfADocumentIsLookedAtBeforeMachinesAreMade(t *testing.T) {
	for spec, want := range map[string]string{
		"{provider: {name: aws, aws: {pools: [{name: w, count: 2}]}}}":                                                                           "",
		"{kubernetesVersion: v1.36.9, provider: {name: aws}, network: {cni: {name: calico}}}":                                                    "", // of a bundle, say
		"{provider: {name: aws}, network: {cni: {name: clico}}}":                                                                                 "spec.network.cni.name: \"clico\"",
		"{provider: {name: aws}, network: {cni: {flannel: {backend: host-gw}}}}":                                                                 "spec.network.cni.flannel.backend: host-gw works within one subnet",
		"{provider: {name: aws}, network: {cni: {name: calico, calico: {encapsulation: none}}}}":                                                 "spec.network.cni.calico.encapsulation: none works within one subnet",
		"{provider: {name: aws, aws: {network: {zones: [eu-west-1a]}}}, network: {cni: {flannel: {backend: host-gw}}}}":                          "",
		"{provider: {name: aws, aws: {network: {vpc: vpc-0a, subnets: [subnet-0a, subnet-0b]}}}, network: {cni: {flannel: {backend: host-gw}}}}": "nodes are to be in 2: write vxlan",
		"{provider: {name: aws, aws: {network: {vpc: vpc-0a, subnets: [subnet-0a]}}}, network: {cni: {flannel: {backend: host-gw}}}}":            "",
		"{provider: {name: aws}, addons: {ingress: none-such}}":                                                                                  "spec.addons.ingress",
		"{provider: {name: aws, aws: {pools: [{name: w, count: 9}]}}, network: {podCIDR: 192.168.0.0/21}}":                                       "has room for 8 of 10 hosts",
	} {
		c, err := Parse([]byte("apiVersion: kubewright.dev/v1alpha1\nkind: Cluster\nmetadata: {name: prod}\nspec: " + spec + "\n"))
		if err == nil {
			err = c.ForeseeAWS()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", spec, err, want)
		}
		if c != nil && len(c.Spec.Hosts) > 0 {
			t.Errorf("%s: it was changed", spec)
		}
	}
}

// YAML reads twelve digits as a number, and of one that begins with 0 another one.
func TestAnAccountInDigitsAlone(t *testing.T) {
	for account, want := range map[string]string{"123456789012": `"123456789012"`, "012345678901": `"012345678901"`, "012345670123": `"012345670123"`, "123": "is the number 123, write a string"} {
		for _, text := range []string{"account: " + account, "\"account\": " + account} {
			_, err := Parse([]byte("apiVersion: kubewright.dev/v1alpha1\nkind: Cluster\nspec: {provider: {name: aws, aws: {" + text + "}}}\n"))
			if err == nil || !strings.Contains(err.Error(), "spec.provider.aws.account: ") || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: the error does not say %s: %v", text, want, err)
			}
		}
	}
}
