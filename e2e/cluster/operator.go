package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubewright/kubewright/e2e/lab"
)

// Operator is a person at a laptop: a folder with a document, a key, known hosts and a
// kubeconfig, and our binary. What they type runs on this machine, not on a host.
type Operator struct {
	Dir    string
	Binary string
	Bundle string

	lab     *lab.Lab
	members []Member          // of the document
	known   map[string]string // a line of known_hosts for each host, by its name
}

// NewOperator sits in dir.
func NewOperator(ctx context.Context, l *lab.Lab, dir string) (*Operator, error) {
	binary, err := l.Kubewright(ctx)
	if err != nil {
		return nil, err
	}
	bundle, err := l.Bundle(ctx)
	if err != nil {
		return nil, err
	}
	return &Operator{Dir: dir, Binary: binary, Bundle: bundle, lab: l, known: map[string]string{}}, nil
}

// Member is a host of the operator's document. Lines are further fields, of YAML.
type Member struct {
	*lab.Host
	Role  string // control-plane, worker, or both with a comma
	Lines string
}

// Write writes the document of a cluster on these hosts; spec holds further lines of it. The
// keys of those that run are known from then on, and no others.
func (o *Operator) Write(ctx context.Context, name, spec string, members ...Member) error {
	ssh, err := o.lab.SSH(ctx)
	if err != nil {
		return err
	}
	var hosts strings.Builder
	for _, m := range members {
		fmt.Fprintf(&hosts, "- name: %s\n  roles: [%s]\n  ssh: {address: %q, user: %s}\n%s", m.Name, m.Role, m.IP, lab.SSHUser, indent("\n"+m.Lines, 2)[min(1, len(m.Lines)):])
		hosts.WriteString("\n")
	}
	document := Document(spec + "\nprovider: {name: hosts}\nhosts:\n" + hosts.String())
	document = strings.Replace(document, "kind: Cluster\n", "kind: Cluster\nmetadata: {name: "+name+"}\n", 1)
	o.members = members
	if err := o.Trust(ctx); err != nil {
		return err
	}
	config := fmt.Sprintf("Host *\n  IdentityFile %s\n  IdentitiesOnly yes\n  ConnectTimeout 8\n  UserKnownHostsFile %s\n", ssh.IdentityFile, o.file("known_hosts"))
	return errors.Join(os.WriteFile(o.file("cluster.yaml"), []byte(document), 0o600), os.WriteFile(o.file("ssh_config"), []byte(config), 0o600))
}

func (o *Operator) file(name string) string { return filepath.Join(o.Dir, name) }

// Edit changes a piece of the document.
func (o *Operator) Edit(old, new string) error {
	b, err := os.ReadFile(o.file("cluster.yaml"))
	if err == nil && !strings.Contains(string(b), old) {
		err = fmt.Errorf("the document has no %q", old)
	}
	return errors.Join(err, os.WriteFile(o.file("cluster.yaml"), bytes.ReplaceAll(b, []byte(old), []byte(new)), 0o600))
}

// Trust believes the keys that the hosts of the document have now. That of a host that is down is the one of before.
func (o *Operator) Trust(ctx context.Context) error {
	var lines strings.Builder
	for _, m := range o.members {
		key, err := m.ReadFile(ctx, "/etc/ssh/ssh_host_ed25519_key.pub")
		if err == nil {
			o.known[m.Name] = m.IP + " " + string(key)
		} else if o.known[m.Name] == "" {
			return fmt.Errorf("read the host key of %s: %w", m.Name, err)
		}
		lines.WriteString(o.known[m.Name])
	}
	return os.WriteFile(o.file("known_hosts"), []byte(lines.String()), 0o600)
}

// Command is kubewright with a sub-command that takes the document.
func (o *Operator) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	argv := append([]string{name, "-f", "cluster.yaml", "--ssh-config", "ssh_config"}, args...)
	cmd := exec.CommandContext(ctx, o.Binary, argv...)
	cmd.Dir = o.Dir
	cmd.Env = append(os.Environ(), "HOME="+o.Dir, "KUBECONFIG="+o.Kubeconfig(), "SSH_AUTH_SOCK=")
	return cmd
}

// Kubeconfig is the operator's.
func (o *Operator) Kubeconfig() string { return o.file("kubeconfig") }

// Run is Command, waited for. The error has what it said.
func (o *Operator) Run(ctx context.Context, name string, args ...string) (stdout, stderr string, err error) {
	cmd := o.Command(ctx, name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("kubewright %s %s: %w\n%s%s", name, strings.Join(args, " "), err, out.String(), errOut.String())
	}
	return out.String(), errOut.String(), err
}

// Up is "kubewright up" with the lab's bundle.
func (o *Operator) Up(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	return o.Run(ctx, "up", append([]string{"--bundle", o.Bundle}, args...)...)
}

// Connect opens the operator's kubeconfig.
func (o *Operator) Connect(controlPlane *lab.Host, workers ...*lab.Host) (*Cluster, error) {
	c := &Cluster{ControlPlane: controlPlane, Workers: workers}
	var err error
	if c.Kubeconfig, err = os.ReadFile(o.Kubeconfig()); err != nil {
		return nil, err
	}
	if c.Config, err = clientcmd.RESTConfigFromKubeConfig(c.Kubeconfig); err != nil {
		return nil, err
	}
	c.Config.QPS = -1
	c.Client, err = kubernetes.NewForConfig(c.Config)
	return c, err
}
