package manifests

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// CertsDir has a folder for each registry that containerd is told about. It is read anew at
// every pull, so a change there needs no restart.
const CertsDir = "/etc/containerd/certs.d"

const (
	caFile       = "ca.crt"
	registryHead = "# Written by kubewright, from spec.artifacts.registries of the cluster's document.\n"
)

// RegistryHosts tells containerd where the images of a registry are. Auth holds USER:PASSWORD
// by the HOST[:PORT] of a mirror; with one of them the file is for root alone.
//
// The password goes into a header, as containerd's own registry.configs.*.auth is deprecated,
// and gone in 2.4. The header is sent to the mirror, and to the server that hands out its
// bearer tokens. Where neither takes a user and a password (but an identity token, say), pods
// need imagePullSecrets, or the kubelet a credential provider.
func RegistryHosts(r config.Registry, auth map[string]string) []host.File {
	dir := registryDir(r.Host)
	f := host.File{Path: dir + "/hosts.toml"}
	root, hosts := registryHead, ""
	for i, m := range r.Mirrors {
		u, err := url.Parse(m)
		if err != nil {
			continue // no valid document has such
		}
		login := auth[u.Host]
		if login != "" {
			f.Mode, f.Secret = 0o600, true
		}
		// Whom containerd calls the server is asked last; if none is named, the registry itself.
		if r.Exclusive && i == len(r.Mirrors)-1 {
			root += mirror(u, "server = %q\n", "[header]\n", r.CA != "", login)
		} else {
			hosts += mirror(u, "\n[host.%q]\n", fmt.Sprintf("[host.%q.header]\n", api(u)), r.CA != "", login)
		}
	}
	f.Content = host.Text(root + hosts)
	if r.CA == "" {
		return []host.File{f}
	}
	return []host.File{{Path: dir + "/" + caFile, Content: host.Text(r.CA)}, f}
}

// registryDir is where containerd looks for a registry: its port is put between underscores.
func registryDir(registry string) string {
	if registry == config.AnyRegistry {
		registry = "_default"
	}
	if i := strings.LastIndex(registry, ":"); i > 0 {
		registry = registry[:i] + "_" + registry[i+1:] + "_"
	}
	return CertsDir + "/" + registry
}

// api is the address of a mirror's API. Without a prefix containerd itself adds /v2.
func api(u *url.URL) string {
	if u.Path == "" {
		return u.Scheme + "://" + u.Host
	}
	return u.Scheme + "://" + u.Host + "/v2" + u.Path
}

// mirror is what containerd has to know of one. What %q writes of addresses and of base64 is
// TOML, too: there is nothing in them to escape.
func mirror(u *url.URL, head, header string, ca bool, login string) string {
	out := fmt.Sprintf(head, api(u)) + `capabilities = ["pull", "resolve"]` + "\n"
	if u.Path != "" {
		out += "override_path = true\n" // else /v2 would come behind the prefix
	}
	if ca && u.Scheme == "https" { // with a CA, containerd would try TLS on http, too
		out += fmt.Sprintf("ca = %q\n", caFile)
	}
	if login != "" {
		out += header + fmt.Sprintf("Authorization = [%q]\n", "Basic "+base64.StdEncoding.EncodeToString([]byte(login)))
	}
	return out
}
