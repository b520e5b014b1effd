package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/config/kubeadm"
	"github.com/kubewright/kubewright/phases"
)

// take merges what a document of kubeadm says of this run with the flags, which win.
func (o *hostOptions) take(r *kubeadm.Run) {
	set(&r.Node.Name, o.nodeName)
	o.nodeName, o.own = r.Node.Name, r.Node
	if len(o.skip) == 0 {
		o.skip = r.SkipPhases
	}
	o.ignore = append(o.ignore, r.IgnorePreflightErrors...)
	o.socket, o.patches = cmp.Or(o.socket, r.Socket), cmp.Or(o.patches, r.Patches)
	o.dryRun = o.dryRun || r.DryRun
	if o.key == "" && o.keyFile == "" {
		o.key = r.CertificateKey
	}
}

// addOwn puts what a document of kubeadm says of this host under its name into the Cluster document.
func (o *hostOptions) addOwn(c *config.Cluster, t *phases.Target, role config.Role) {
	if n := o.own; says(n) {
		n.Name = cmp.Or(o.nodeName, strings.ToLower(t.Facts.Hostname))
		n.Roles = []config.Role{role}
		c.Spec.Hosts = append(c.Spec.Hosts, n)
	}
}

// says tells whether there is more to a host than its name.
func says(n config.Node) bool { return n.Address != "" || n.Taints != nil || n.KubeletArgs != nil }

// fromKubeadm takes those of kubeadm's documents that are for init. Cni is --cni.
func (o *initOptions) fromKubeadm(b []byte, cni string) (*config.Cluster, error) {
	d, err := kubeadm.Parse(b)
	if err != nil {
		return nil, err
	}
	if d.Init == nil {
		return nil, errors.New("it holds a JoinConfiguration alone: that is for `kubewright join --config`")
	}
	set(&d.Cluster.Spec.Network.CNI.Name, cni)
	o.tokens = d.Init.Tokens
	o.keyOfDocument = o.key == "" && o.keyFile == ""
	o.take(d.Init)
	return d.Cluster, nil
}

// bootstrapTokens are the token of the join command (zero: any), and all that a document of
// kubeadm wishes for.
func (o *initOptions) bootstrapTokens() (addons.Token, []phases.InitToken, error) {
	token, err := o.readToken()
	if err != nil || o.tokens == nil {
		return token, nil, err
	}
	if token != (addons.Token{}) || o.ttl != addons.TokenTTL {
		return token, nil, errors.New("--token, --token-file, --token-ttl and InitConfiguration.bootstrapTokens: the document says it all, so write it there")
	}
	var list []phases.InitToken
	for _, w := range o.tokens {
		var token addons.Token
		if w.Text != "" {
			if token, err = addons.ParseToken(w.Text); err != nil {
				return token, nil, err
			}
		}
		list = append(list, phases.InitToken{Token: token, Description: w.Description, TTL: w.TTL, Expires: w.Expires, Usages: w.Usages, Groups: w.Groups})
	}
	return list[0].Token, list, nil
}

// fromKubeadm is the Cluster document that kubeadm's documents make, and what they hold
// beside it. Named asks for the name of a host of which they say something.
func fromKubeadm(b []byte, named bool) (*config.Cluster, *kubeadm.Documents, error) {
	d, err := kubeadm.Parse(b)
	if err != nil || d.Cluster == nil {
		return nil, d, err
	}
	if n := d.Init.Node; says(n) {
		if n.Name == "" && named {
			return nil, nil, errors.New("InitConfiguration.nodeRegistration.name: a Cluster document needs the name of a host whose address, taints or arguments it holds: write it")
		}
		n.Name = cmp.Or(n.Name, "this-host")
		n.Roles = []config.Role{config.ControlPlaneRole}
		d.Cluster.Spec.Hosts = append(d.Cluster.Spec.Hosts, n)
	}
	if s := &d.Cluster.Spec.Runtime.Socket; *s != "" && !strings.Contains(*s, "://") {
		*s = "unix://" + *s // as kubeadm
	}
	return d.Cluster, d, nil
}

func newMigrate(out func() output, file *string, versions func() (config.Versions, error)) *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use: "migrate", Short: "Turn kubeadm's documents into a Cluster document", Args: cobra.NoArgs,
		Long: `Turn kubeadm's documents into a Cluster document.

It holds what they say, and nothing that they leave open: there our defaults apply, which
"kubewright config print" shows. What has no place in it, as a token, is named on stderr.
kubeadm has no word for the pod network: it is flannel where they give podSubnet, else none.`,
		Example: "  kubewright config migrate --config kubeadm.yaml > cluster.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if *file == "" {
				return misuse(errors.New("name kubeadm's documents with --config FILE"))
			}
			v, err := versions()
			if err != nil {
				return err
			}
			document, unkept, err := migrate(*file, v)
			if err != nil {
				return misuse(err)
			}
			if len(unkept) > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "not in the Cluster document:\n  - %s\n", strings.Join(unkept, "\n  - "))
			}
			fmt.Fprintln(cmd.ErrOrStderr(), cniNote)
			if out() == "json" {
				if document, err = yaml.YAMLToJSON(document); err != nil {
					return err
				}
				document = append(document, '\n')
			}
			if target != "" {
				return os.WriteFile(target, document, 0o600)
			}
			_, err = cmd.OutOrStdout().Write(document)
			return err
		},
	}
	cmd.Flags().StringVar(file, "old-config", "", "the same as --config, as kubeadm has it")
	cmd.Flags().StringVar(&target, "new-config", "", "file to write (default: standard output)")
	return cmd
}

const cniNote = "kubeadm has no word for the pod network: see spec.network.cni.name, where none leaves it to you"

// migrate gives the Cluster document as YAML, and what has no place in it.
func migrate(path string, v config.Versions) (document []byte, unkept []string, err error) {
	b, err := config.Read(path)
	if err != nil {
		return nil, nil, err
	}
	if !kubeadm.Is(b) {
		return nil, nil, fmt.Errorf("%s: no document of kubeadm is in it", path)
	}
	c, d, err := fromKubeadm(b, true)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if c == nil {
		return nil, nil, fmt.Errorf("%s: a JoinConfiguration alone describes no cluster: `kubewright join --config` takes it as it is", path)
	}
	c.APIVersion, c.Kind = config.APIVersion, config.Kind
	if document, err = said(c); err != nil {
		return nil, nil, err
	}
	// What is printed is what is checked.
	whole, err := config.Parse(document)
	if err != nil {
		return nil, nil, err
	}
	whole.Default(v)
	if err := whole.Validate(); err != nil {
		return nil, nil, fmt.Errorf("%s is not valid: %s", path, kubeadm.In(err))
	}
	return document, d.Unkept, nil
}

// said is a document without the fields that are left open.
func said(c *config.Cluster) ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var object map[string]any
	if err := json.Unmarshal(b, &object); err != nil {
		return nil, err
	}
	spec, _ := object["spec"].(map[string]any)
	for name := range spec {
		if name != "kubelet" { // there an empty value is one
			spec[name] = prune(spec[name])
		}
		if spec[name] == nil {
			delete(spec, name)
		}
	}
	if c.Metadata.Name == "" {
		delete(object, "metadata")
	}
	return yaml.Marshal(object)
}

// prune takes empty strings, zeros and what holds nothing else out of objects; lists stay.
func prune(v any) any {
	object, ok := v.(map[string]any)
	if !ok {
		if v == "" || v == 0.0 || v == "0s" {
			return nil
		}
		return v
	}
	for name := range object {
		if name == "config" { // of kube-proxy: there an empty value is one
			continue
		}
		if object[name] = prune(object[name]); object[name] == nil {
			delete(object, name)
		}
	}
	if len(object) == 0 {
		return nil
	}
	return object
}
