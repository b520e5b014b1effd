package aws

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/cloud"
)

// What the document says of machines, those that are there do not get, and it is said of each pool.
func TestSettingsAreOfNewMachines(t *testing.T) {
	start(t, cloud.Options{})
	if _, err := connect(t, parse(t, "controlPlane: {count: 3}\npools: [{name: w, count: 2}, {name: x, count: 1, spot: true}]")).Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	const stay, next = ", and stays so; ", " applies to new machines only: terminate those that are there, one at a time, and `kubewright up` makes others"
	for document, want := range map[string][]string{
		"controlPlane: {count: 3}\npools: [{name: w, count: 3}, {name: x, count: 1, spot: true, labels: {a: b}}]": nil,
		"controlPlane: {count: 3, instanceType: m6i.large}\npools: [{name: w, count: 2, diskGiB: 50}, {name: x, count: 1}]": {
			"control-plane-0 is t3.medium; control-plane-1 is t3.medium; control-plane-2 is t3.medium" + stay + "m6i.large, 40 GiB" + next,
			"w-0 is 40 GiB; w-1 is 40 GiB" + stay + "t3.medium, 50 GiB" + next,
			"x-0 is spot" + stay + "t3.medium, 40 GiB" + next},
		"ssh: {bastion: t4g.small}\npools: [{name: w, count: 1, spot: true}]": {"w-0 is not spot" + stay + "t3.medium, 40 GiB, spot" + next, "bastion is t4g.nano" + stay + "t4g.small, 8 GiB" + next},
		"controlPlane: {image: ami-1}":                                        {"control-plane-0 is ami-"},
		"controlPlane: {instanceType: m6i.large}":                             {"control-plane-0 is t3.medium" + stay + "m6i.large, 40 GiB applies to new machines only: there is but one control plane, with which the cluster would go"},
	} {
		a := connect(t, parse(t, document))
		if err := a.Hosts(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := a.Notes(); !slices.EqualFunc(got, want, strings.HasPrefix) {
			t.Errorf("%s:\n%s\nnot\n%s", document, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// Who is told to terminate machines that are there is told first that no others could be made.
func TestSettingsOfMachinesThatAreThereAreLookedAt(t *testing.T) {
	start(t, cloud.Options{})
	if _, err := connect(t, parse(t, "controlPlane: {count: 1}\npools: [{name: w, count: 1}]")).Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	for document, want := range map[string]string{
		"controlPlane: {instanceType: m7i.huge}\npools: [{name: w, count: 1}]":                                   "spec.provider.aws.controlPlane.instanceType",
		"controlPlane: {count: 1}\npools: [{name: w, count: 2, image: ami-12345}]":                               "spec.provider.aws.pools[0].image",
		"controlPlane: {count: 1}\npools: [{name: w, count: 1, image: ami-12345}]":                               "spec.provider.aws.pools[0].image",
		"controlPlane: {count: 1}\npools: [{name: w, count: 1, instanceProfile: nope}]":                          "spec.provider.aws.pools[0].instanceProfile",
		"controlPlane: {count: 1}\nssh: {bastion: maybe}\npools: [{name: w, count: 1}]":                          "spec.provider.aws.ssh.bastion",
		"controlPlane: {instanceType: m7i.huge}\nloadBalancer: {scheme: internal}\npools: [{name: w, count: 1}]": "spec.provider.aws.controlPlane.instanceType",
	} {
		for what, do := range map[string]func(*Cloud) error{
			"plan": func(a *Cloud) error { _, err := a.Plan(t.Context()); return err },
			"up":   func(a *Cloud) error { _, err := a.Create(t.Context()); return err },
		} {
			if err := do(connect(t, parse(t, document))); !errors.As(err, new(*DocumentError)) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of %s: %v", what, document, err)
			}
		}
	}
}

func TestSSHFindsTheWayByItself(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("it needs ssh")
	}
	start(t, cloud.Options{})
	for jump, document := range map[string]string{
		"ubuntu@[203.0.113.1]": "controlPlane: {count: 1}",
		"me@gate":              "ssh: {proxyJump: me@gate, user: admin}",
	} {
		a := connect(t, parse(t, document))
		if _, err := a.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		file, err := a.SSHConfig()
		if err != nil {
			t.Fatal(err)
		}
		node := a.c.Spec.Hosts[0].SSH
		out, err := exec.Command(ssh, "-G", "-F", file, node.Address).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"user " + node.User, "identityfile " + a.keyFile(), "userknownhostsfile " + a.knownHosts(), "stricthostkeychecking accept-new"} {
			if !strings.Contains(string(out), "\n"+want+"\n") && !strings.HasPrefix(string(out), want+"\n") {
				t.Errorf("no %q in %s", want, out)
			}
		}
		if !strings.Contains(strings.NewReplacer("[", "", "]", "").Replace(string(out)), "\nproxyjump "+strings.NewReplacer("[", "", "]", "").Replace(jump)+"\n") {
			t.Errorf("no %s in %s", jump, out)
		}
		if a.hasBastion() { // which ssh is given the same file for
			out, err := exec.Command(ssh, "-G", "-F", file, "203.0.113.1").Output()
			if err != nil || !strings.Contains(string(out), "identityfile "+a.keyFile()) || strings.Contains(string(out), "proxyjump") {
				t.Errorf("the bastion: %s, %v", out, err)
			}
		}
		if _, err := a.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("it is left")
		}
	}
}

// ssh looks for its files from elsewhere, and a per cent begins a token of its.
func TestSSHFindsItsFilesFromAnywhere(t *testing.T) {
	start(t, cloud.Options{})
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_DATA_HOME", filepath.Join(dir, "%h"))
	t.Chdir(dir)
	a := connect(t, parse(t, "ssh: {keyName: mine, identityFile: 'my %d key'}"))
	a.c.Spec.Hosts = []config.Node{{SSH: &config.SSH{Address: "192.0.2.1", User: "ubuntu"}}}
	file, err := a.SSHConfig()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	for _, want := range []string{"\n  IdentityFile \"" + dir + "/my %%d key\"\n", "\n  UserKnownHostsFile \"" + dir + "/%%h/kubewright/aws/eu-west-1/prod/known_hosts\"\n"} {
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("no %q in %s, %v", want, b, err)
		}
	}
}

func TestWhatIsDeletedHasAName(t *testing.T) {
	start(t, cloud.Options{})
	a := connect(t, parse(t, small))
	if _, err := a.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	doomed, err := a.Doomed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, c := range doomed {
		if all = append(all, c.String()); c.Name == "" || strings.Contains(c.String(), "arn:") {
			t.Errorf("%+v", c)
		}
	}
	for _, want := range []string{"delete role kubewright-prod-control-plane-eu-west-1", "delete instance-profile kubewright-prod-control-plane-eu-west-1", "delete load-balancer prod-api", "delete target-group prod-api"} {
		if !slices.Contains(all, want) {
			t.Errorf("no %q in %q", want, all)
		}
	}
}
