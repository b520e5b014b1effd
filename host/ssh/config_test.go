package ssh

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/config"
)

func TestSSHConfig(t *testing.T) {
	home := sshHome(t)
	put(t, filepath.Join(home, ".ssh", "config"), strings.Join([]string{
		"Host alias other", " HostName %h.example", " User ops", " Port 2222", " IdentityFile ~/keys/%r@%h", " IdentityFile \"/with blank/%p\"",
		" IdentitiesOnly yes", " IdentityAgent ${HOME}/agent", " ProxyJump jump:2200, last", " HostKeyAlias known-as", " UserKnownHostsFile ~/one ~/two", " ConnectTimeout 1m30s",
		"Host proxied", " ProxyCommand nc %h %p",
		"Host slow", " ConnectTimeout soon",
		"Host circle", " ProxyJump circle2", "Host circle2", " ProxyJump circle",
		"Host slow", " ConnectTimeout soon",
		"Host jump", " User hop", "Host self* ", " ProxyJump self-bastion",
		"Match host x exec \"true\"", " ForwardAgent yes",
	}, "\n"), 0o600)
	c := newClient(t, Options{})
	e, err := c.endpoint("alias", config.SSH{})
	if err != nil {
		t.Fatal(err)
	}
	want := endpoint{name: "alias", address: "alias.example", port: "2222", user: "ops", identities: []string{home + "/keys/ops@alias.example", "/with blank/2222"},
		only: true, agent: home + "/agent", known: []string{home + "/one", home + "/two"}, alias: "known-as", jumps: []string{"jump:2200", "last"}, connect: 90 * time.Second}
	if diff := gocmp.Diff(want, e, gocmp.AllowUnexported(endpoint{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// The document wins.
	e, err = c.endpoint("node", config.SSH{Address: "alias", User: "me", Port: 22, IdentityFile: "~/mine", ProxyJump: "none"})
	if err != nil {
		t.Fatal(err)
	}
	if e.connect != 90*time.Second || e.user != "me" || e.port != "22" || len(e.identities) != 1 || e.identities[0] != home+"/mine" || len(e.jumps) != 0 || e.address != "alias.example" {
		t.Errorf("%+v", e)
	}
	route := func(name string) ([]endpoint, error) {
		e, err := c.endpoint(name, config.SSH{})
		if err != nil {
			return nil, err
		}
		return c.route(e)
	}
	hops, err := route("alias")
	if err != nil || len(hops) != 3 || hops[0].user != "hop" || hops[0].port != "2200" || hops[1].address != "last" {
		t.Errorf("%v, %v", hops, err)
	}
	if hops, err := route("self-one"); err != nil || len(hops) != 2 {
		t.Errorf("a jump host that its own rule matches: %v, %v", hops, err)
	}
	_, err = route("slow")
	wants(t, err, "slow", "ConnectTimeout", "soon")
	_, err = route("circle")
	wants(t, err, "circle")
	_, err = route("proxied")
	wants(t, err, "proxied", "ProxyCommand", "ProxyJump")
	if e, err := c.endpoint("v6", config.SSH{Address: "[2001:db8::1]"}); err != nil || e.addr() != "[2001:db8::1]:22" {
		t.Errorf("%v, %v", e, err)
	}

	put(t, filepath.Join(home, "match"), "Host a\n Port 1\nMatch user ops\n Compression yes\n User x\n", 0o600)
	_, err = New(Options{Config: filepath.Join(home, "match")})
	wants(t, err, "match", "line 5", "User", "Match")
	_, err = New(Options{Config: filepath.Join(home, "absent")})
	wants(t, err, "absent")
}

// Where all of a machine's users share known hosts, a file of one's own need not be there.
func TestKnownHostsThatAreNotThere(t *testing.T) {
	_, global := os.Stat(globalKnownHosts)
	home := sshHome(t)
	err := Options{KnownHosts: []string{"none-such"}, Identities: []string{"~/none-such"}}.Check()
	wants(t, err, "--identity-file: stat "+home+"/none-such: no such file")
	if told := strings.Contains(err.Error(), "--known-hosts: stat none-such: no such file"); told != (global != nil) {
		t.Errorf("it says %v, and that %s is there: %v", err, globalKnownHosts, global)
	}
	for _, o := range []Options{{KnownHosts: []string{"none-such"}, AcceptNew: true}, {KnownHosts: []string{"none"}}} {
		if err := o.Check(); err != nil {
			t.Error(err)
		}
	}
}
