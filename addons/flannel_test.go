package addons

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	subnetEnv = "/run/flannel/subnet.env"
	conflist  = "/etc/cni/net.d/10-flannel.conflist"
)

func TestConfigurationIsInstalledWhenSubnetIsKnown(t *testing.T) {
	for name, test := range map[string]struct{ env, ranges, routes string }{
		"IPv4":                {"FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n", "10.244.3.0/24", "10.244.0.0/16"},
		"a small one":         {"FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.193/26\nFLANNEL_MTU=1450\n", "10.244.3.192/26", "10.244.0.0/16"},
		"IPv6":                {"FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:a::1/64\nFLANNEL_MTU=1450\n", "fd00:10:244:a::/64", "fd00:10:244::/56"},
		"a small one of IPv6": {"FLANNEL_IPV6_NETWORK=fd00::/56\nFLANNEL_IPV6_SUBNET=fd00::abc1/124\nFLANNEL_MTU=1450\n", "fd00::abc0/124", "fd00::/56"},
		"both": {"FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00:0:0:1::1/64\nFLANNEL_MTU=1450\n",
			"10.244.3.0/24 fd00:0:0:1::/64", "10.244.0.0/16 fd00::/48"},
	} {
		t.Run(name, func(t *testing.T) {
			root := flannelHost(t, "/etc/kube-flannel/cni-conf.json", subnetEnv)
			write(t, root+"/etc/kube-flannel/cni-conf.json", cniConf(newCluster(nil)))
			write(t, root+subnetEnv, test.env)
			if out, err := runScript(root, installConf); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			b, err := os.ReadFile(root + conflist)
			if err != nil {
				t.Fatal(err)
			}
			var conf struct {
				Plugins []struct {
					MTU  int
					IPAM struct {
						Ranges [][]struct{ Subnet netip.Prefix }
						Routes []struct{ Dst string }
					}
				}
			}
			if err := json.Unmarshal(b, &conf); err != nil {
				t.Fatalf("%v in %s", err, b)
			}
			var ranges, routes []string
			for _, r := range conf.Plugins[0].IPAM.Ranges {
				if r[0].Subnet != r[0].Subnet.Masked() {
					t.Errorf("%s does not begin where its range does", r[0].Subnet)
				}
				ranges = append(ranges, r[0].Subnet.String())
			}
			for _, r := range conf.Plugins[0].IPAM.Routes {
				routes = append(routes, r.Dst)
			}
			if conf.Plugins[0].MTU != 1450 || strings.Join(ranges, " ") != test.ranges || strings.Join(routes, " ") != test.routes {
				t.Errorf("ranges %v, routes %v: %s", ranges, routes, b)
			}
		})
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestConfigurationIsNotInstalledWithoutSubnet(t *testing.T) {
	root := flannelHost(t, "/etc/kube-flannel/cni-conf.json")
	out, err := runScript(root, strings.ReplaceAll(installConf, "sleep 0.1", ":"))
	if err == nil || !strings.Contains(string(out), "kube-flannel") || exists(root, conflist) {
		t.Errorf("error %v, output %q, configuration there: %t", err, out, exists(root, conflist))
	}
}

func TestSubnetOfAnEarlierLifeIsForgotten(t *testing.T) {
	for name, test := range map[string]struct{ before, after []string }{
		"restart of the pod": {[]string{subnetEnv, conflist}, []string{subnetEnv, conflist}},
		"reboot":             {[]string{conflist}, []string{conflist}},
		"reset by hand":      {[]string{subnetEnv}, nil},
		"new host":           {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := flannelHost(t, test.before...)
			out, err := runScript(root, startFlanneld, "--ip-masq", "--iface=a b")
			if err != nil || string(out) != "flanneld --ip-masq --iface=a b\n" {
				t.Errorf("started %q, error %v", out, err)
			}
			for _, file := range []string{subnetEnv, conflist} {
				if want := slices.Contains(test.after, file); exists(root, file) != want {
					t.Errorf("%s is there: %t, want %t", file, !want, want)
				}
			}
		})
	}
}

// flannelHost is a directory with files of a flannel container, in which flanneld tells its arguments.
func flannelHost(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"/run/flannel", "/etc/cni/net.d", "/etc/kube-flannel", "/opt/bin"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range files {
		if err := os.WriteFile(root+file, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range map[string]string{"flanneld": `echo flanneld "$@"`} {
		if err := os.WriteFile(filepath.Join(root, "opt/bin", name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func runScript(root, script string, args ...string) ([]byte, error) {
	for _, dir := range []string{"/run/", "/etc/", "/opt/"} {
		script = strings.ReplaceAll(script, dir, root+dir)
	}
	return exec.Command("sh", append([]string{"-c", script, "flanneld"}, args...)...).CombinedOutput()
}

func exists(root, file string) bool {
	_, err := os.Stat(root + file)
	return err == nil
}
