package addons

import (
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
	root := flannelHost(t, "/etc/kube-flannel/cni-conf.json", subnetEnv)
	if out, err := runScript(root, installConf); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !exists(root, conflist) {
		t.Error("no configuration")
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

// flannelHost is a directory with files of a flannel container, and its programs replaced:
// flanneld tells its arguments, install-conf copies.
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
	for name, script := range map[string]string{"flanneld": `echo flanneld "$@"`, "install-conf": `exec cp "$1" "$2"`} {
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
