package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"
)

// entries is a kubeconfig field by field, as it is written: client-go's own types would
// drop the fields that they don't know, and those belong to somebody.
type entries map[string]any

// parseEntries reads a kubeconfig; an empty one is a kubeconfig without entries. Every
// field that client-go knows is held to its type, and no name is there twice.
func parseEntries(b []byte) (entries, *api.Config, error) {
	typed, err := clientcmd.Load(b)
	if err != nil {
		return nil, nil, fmt.Errorf("is no kubeconfig: %w", err)
	}
	j, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return nil, nil, fmt.Errorf("is no kubeconfig: %w", err)
	}
	e := entries{}
	d := json.NewDecoder(bytes.NewReader(j))
	d.UseNumber() // others' numbers stay what they are
	if err := d.Decode(&e); err != nil {
		return nil, nil, fmt.Errorf("is no kubeconfig: %w", err)
	}
	if e == nil {
		e = entries{}
	}
	for field, value := range map[string]any{"apiVersion": "v1", "kind": "Config"} {
		if _, ok := e[field]; !ok {
			e[field] = value
		}
	}
	return e, typed, nil
}

// singular is the field that holds the content of an entry of a list: clusters, users or contexts.
func singular(list string) string { return strings.TrimSuffix(list, "s") }

// set puts an entry at the place of the one of that name, or at the end.
func (e entries) set(list, name string, content any) {
	items, _ := e[list].([]any)
	for _, item := range items {
		if m, _ := item.(map[string]any); m["name"] == name {
			m[singular(list)] = content
			return
		}
	}
	e[list] = append(items, map[string]any{"name": name, singular(list): content})
}

// get is the content of an entry; nil where there is none of that name.
func (e entries) get(list, name string) map[string]any {
	items, _ := e[list].([]any)
	for _, item := range items {
		if m, _ := item.(map[string]any); m["name"] == name {
			content, _ := m[singular(list)].(map[string]any)
			return content
		}
	}
	return nil
}

func (e entries) delete(list, name string) {
	items, _ := e[list].([]any)
	e[list] = slices.DeleteFunc(items, func(item any) bool {
		m, _ := item.(map[string]any)
		return m["name"] == name
	})
}

// source is one cluster to merge: that of the current context of a kubeconfig, with its
// files read in. Dir is what relative paths in it start from.
func source(b []byte, dir string) (*api.Config, error) {
	_, c, err := parseEntries(b)
	if err != nil {
		return nil, err
	}
	if c.CurrentContext == "" && len(c.Contexts) == 1 {
		c.CurrentContext = slices.Collect(maps.Keys(c.Contexts))[0]
	}
	if c.CurrentContext == "" {
		return nil, errors.New("has no current context: choose one in it first with `kubewright kubeconfig use`")
	}
	if err := originate(c, dir); err != nil {
		return nil, err
	}
	if err := api.MinifyConfig(c); err != nil {
		return nil, fmt.Errorf("is not whole: %w", err)
	}
	if context := c.Contexts[c.CurrentContext]; context.Cluster == "" || context.AuthInfo == "" {
		return nil, fmt.Errorf("is not whole: the context %s names no cluster, or no user", c.CurrentContext)
	}
	if err := api.FlattenConfig(c); err != nil {
		return nil, fmt.Errorf("is not whole: %w", err)
	}
	return c, nil
}

// originate says from where relative paths start.
func originate(c *api.Config, dir string) error {
	at, err := filepath.Abs(filepath.Join(dir, "config"))
	for _, cluster := range c.Clusters {
		cluster.LocationOfOrigin = at
	}
	for _, user := range c.AuthInfos {
		user.LocationOfOrigin = at
	}
	return err
}

type mergeOptions struct {
	name      string // empty: the cluster's own
	overwrite bool
	keep      bool // the current context
}

// merge puts the cluster of from into a kubeconfig: a cluster, a user and a context, all
// named alike, as kind does it: kubeadm calls every user kubernetes-admin. It returns the name.
func merge(e entries, have, from *api.Config, o mergeOptions) (string, error) {
	context := from.Contexts[from.CurrentContext]
	cluster := from.Clusters[context.Cluster]
	name := o.name
	if name == "" {
		name = context.Cluster
	}
	if owner := stranger(have, name, cluster); owner != "" && !o.overwrite {
		return name, &strangerError{owner, name}
	}
	single := api.NewConfig()
	single.Clusters[name], single.AuthInfos[name] = cluster, from.AuthInfos[context.AuthInfo]
	single.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name, Namespace: context.Namespace}
	b, err := clientcmd.Write(*single)
	if err != nil {
		return name, err
	}
	add, _, err := parseEntries(b)
	if err != nil {
		return name, err
	}
	after := add.get("contexts", name)
	if old := e.get("contexts", name); old != nil && stranger(have, name, cluster) == "" {
		kept := maps.Clone(old) // the namespace that its user has chosen, say
		maps.Copy(kept, after)
		after = kept
	}
	e.set("clusters", name, add.get("clusters", name))
	e.set("users", name, add.get("users", name))
	e.set("contexts", name, after)
	if !o.keep {
		e["current-context"] = name
	}
	return name, nil
}

// strangerError is a name in a kubeconfig that something of another cluster has.
type strangerError struct{ owner, name string }

func (e *strangerError) Error() string { return "it has " + e.owner }

// stranger describes what stands under a name and is not of this cluster; empty where nothing does.
func stranger(have *api.Config, name string, cluster *api.Cluster) string {
	if other := have.Clusters[name]; other != nil && !sameCluster(other, cluster) {
		return fmt.Sprintf("another cluster named %s, at %s", name, other.Server)
	}
	if c := have.Contexts[name]; c != nil {
		if other := have.Clusters[c.Cluster]; other == nil || !sameCluster(other, cluster) {
			return fmt.Sprintf("a context %s of another cluster, %s", name, c.Cluster)
		}
	}
	if have.AuthInfos[name] == nil {
		return ""
	}
	for _, of := range slices.Sorted(maps.Keys(have.Contexts)) {
		c := have.Contexts[of]
		if other := have.Clusters[c.Cluster]; c.AuthInfo == name && (other == nil || !sameCluster(other, cluster)) {
			return fmt.Sprintf("a user %s, whom the context %s of another cluster needs", name, of)
		}
	}
	if have.Clusters[name] == nil && have.Contexts[name] == nil {
		return fmt.Sprintf("a user %s that no cluster of this name goes with", name)
	}
	return ""
}

// sameCluster tells whether two entries trust the same CA; where neither names one, whether
// they lead to the same server.
func sameCluster(a, b *api.Cluster) bool {
	inA, inB := certificates(authority(a)), certificates(authority(b))
	if len(inA) == 0 && len(inB) == 0 {
		return a.Server == b.Server
	}
	return slices.ContainsFunc(inA, func(c []byte) bool { // while a CA is being replaced there are two
		return slices.ContainsFunc(inB, func(d []byte) bool { return bytes.Equal(c, d) })
	})
}

func authority(c *api.Cluster) []byte {
	if len(c.CertificateAuthorityData) > 0 || c.CertificateAuthority == "" {
		return c.CertificateAuthorityData
	}
	b, _ := os.ReadFile(api.ResolvePath(c.CertificateAuthority, filepath.Dir(c.LocationOfOrigin))) // one that cannot be read is nobody's
	return b
}

func certificates(b []byte) (out [][]byte) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			out = append(out, block.Bytes)
		}
	}
	return out
}

// contextRow is a context as `kubeconfig list` shows it.
type contextRow struct {
	Name    string     `json:"name"`
	Cluster string     `json:"cluster"`
	Server  string     `json:"server,omitempty"` // empty: the cluster has no entry
	User    string     `json:"user"`
	Current bool       `json:"current"`
	Expires *time.Time `json:"expires,omitempty"` // of the client certificate; absent where there is none, or it cannot be read
}

func contextRows(c *api.Config) []contextRow {
	out := []contextRow{}
	for _, name := range slices.Sorted(maps.Keys(c.Contexts)) {
		context := c.Contexts[name]
		r := contextRow{Name: name, Cluster: context.Cluster, User: context.AuthInfo, Current: name == c.CurrentContext}
		if cluster := c.Clusters[context.Cluster]; cluster != nil {
			r.Server = cluster.Server
		}
		if user := c.AuthInfos[context.AuthInfo]; user != nil {
			r.Expires = expiry(user)
		}
		out = append(out, r)
	}
	return out
}

func expiry(user *api.AuthInfo) *time.Time {
	b := user.ClientCertificateData
	if len(b) == 0 && user.ClientCertificate != "" {
		b, _ = os.ReadFile(api.ResolvePath(user.ClientCertificate, filepath.Dir(user.LocationOfOrigin)))
	}
	for _, der := range certificates(b) { // the first is the client's own
		if cert, err := x509.ParseCertificate(der); err == nil {
			return &cert.NotAfter
		}
		break
	}
	return nil
}

// use makes a context the current one.
func use(e entries, have *api.Config, name string) error {
	if have.Contexts[name] == nil {
		return noContext(have, name)
	}
	e["current-context"] = name
	return nil
}

// rename gives a context another name; cluster and user keep theirs.
func rename(e entries, have *api.Config, from, to string) error {
	switch {
	case have.Contexts[from] == nil:
		return noContext(have, from)
	case from == to:
		return nil
	case have.Contexts[to] != nil:
		return fmt.Errorf("it has a context %s already: choose another name, or remove that one first", to)
	}
	for _, item := range e["contexts"].([]any) {
		if m, _ := item.(map[string]any); m["name"] == from {
			m["name"] = to
		}
	}
	if have.CurrentContext == from {
		e["current-context"] = to
	}
	return nil
}

// remove takes contexts out, with the clusters and users that no other context uses. It
// tells whether the current context was one of them, so that there is none any more.
func remove(e entries, have *api.Config, names []string) (orphaned bool, err error) {
	for _, name := range names {
		if have.Contexts[name] == nil {
			return false, noContext(have, name)
		}
	}
	clusters, users := map[string]bool{}, map[string]bool{}
	for name, c := range have.Contexts {
		if !slices.Contains(names, name) {
			clusters[c.Cluster], users[c.AuthInfo] = true, true
		}
	}
	for _, name := range names {
		c := have.Contexts[name]
		e.delete("contexts", name)
		if !clusters[c.Cluster] {
			e.delete("clusters", c.Cluster)
		}
		if !users[c.AuthInfo] {
			e.delete("users", c.AuthInfo)
		}
	}
	if !slices.Contains(names, have.CurrentContext) {
		return false, nil
	}
	e["current-context"] = ""
	return true, nil
}

func noContext(have *api.Config, name string) error {
	if len(have.Contexts) == 0 {
		return fmt.Errorf("it has no context %s, and no other: merge one with `kubewright kubeconfig merge`", name)
	}
	return fmt.Errorf("it has no context %s: it has %s", name, strings.Join(slices.Sorted(maps.Keys(have.Contexts)), ", "))
}
