package addons

import (
	"os"
	"os/exec"
	"path/filepath"
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

func TestLeftoversAreRemovedBeforeFlanneldStarts(t *testing.T) {
	for name, test := range map[string]struct {
		before []string
		kept   bool
	}{
		"restart of the pod": {[]string{subnetEnv, conflist}, true},
		"reboot":             {[]string{conflist}, false},
		"reset by hand":      {[]string{subnetEnv}, false},
		"new host":           {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := flannelHost(t, test.before...)
			out, err := runScript(root, startFlanneld, "--ip-masq", "--iface=a b")
			if err != nil || string(out) != "flanneld --ip-masq --iface=a b\n" {
				t.Errorf("started %q, error %v", out, err)
			}
			if exists(root, subnetEnv) != test.kept || exists(root, conflist) != test.kept {
				t.Errorf("subnet.env is there: %t, configuration: %t; want both %t", exists(root, subnetEnv), exists(root, conflist), test.kept)
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
