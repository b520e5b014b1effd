package phases

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// mirrors tells a containerd of ours where to pull images from: now, and those of later pods.
// It reads these files at every pull, so it is not restarted.
func mirrors(ctx context.Context, t *Target) error {
	if !t.configuresContainerd() {
		return nil // preflight has said what to do
	}
	var files []host.File
	for _, r := range t.Cluster.Spec.Artifacts.Registries {
		auth, err := t.logins(r)
		if err != nil {
			return err
		}
		files = append(files, manifests.RegistryHosts(r, auth)...)
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	infos, err := t.Host.Stat(ctx, paths...)
	if err != nil {
		return err
	}
	for i, f := range files { // a password that was in one is not shown as it goes
		if info, ok := infos[f.Path]; ok && info.Mode.Perm()&0o004 == 0 {
			files[i].Secret = true
		}
	}
	if _, err := t.write(ctx, files...); err != nil {
		return err
	}
	return t.forgetMirrors(ctx, paths)
}

// joinMirrors is mirrors of the cluster that was found.
func joinMirrors(ctx context.Context, t *Target) error {
	t, _, err := t.joined(ctx)
	if err != nil {
		return err
	}
	return mirrors(ctx, t)
}

// forgetMirrors brings back what was there before files of ours that are wanted no more: an
// empty folder alone would keep containerd from looking at the mirrors of every other registry.
func (t *Target) forgetMirrors(ctx context.Context, wanted []string) error {
	if t.Journal == nil {
		return nil
	}
	things := slices.DeleteFunc(t.Journal.things(aFile), func(s Step) bool {
		return !strings.HasPrefix(s.Name, manifests.CertsDir+"/") || slices.ContainsFunc(wanted, func(p string) bool {
			return p == s.Name || strings.HasPrefix(p, s.Name+"/")
		})
	})
	for _, s := range things {
		host, ok := strings.CutSuffix(strings.TrimPrefix(s.Name, manifests.CertsDir+"/"), "/hosts.toml")
		if !ok {
			continue
		}
		infos, err := t.Host.Stat(ctx, s.Name)
		if err != nil {
			return err
		}
		info, exists := infos[s.Name]
		if !exists {
			continue
		}
		now, err := describePath(ctx, t.Host, s.Name, info)
		if err != nil {
			return err
		}
		if now == s.After && now != s.Before {
			t.notice("nobody names a mirror of %s any more, so %s goes: to keep it, name it in the document, or with --registry-mirror", strings.Replace(host, "_default", "all other registries", 1), s.Name)
		}
	}
	return t.restoreFiles(ctx, things, map[string]bool{})
}

// logins are the credentials for the mirrors of a registry, USER:PASSWORD by host.
func (t *Target) logins(r config.Registry) (map[string]string, error) {
	auth := map[string]string{}
	for _, mirror := range r.MirrorHosts() {
		if t.Credentials == nil {
			break
		}
		user, password, err := t.Credentials(mirror)
		if err != nil {
			return nil, fmt.Errorf("credentials for %s, a mirror of %s: %w", mirror, r.Host, err)
		}
		if user != "" {
			auth[mirror] = user + ":" + password
		}
	}
	return auth, nil
}

// configuresContainerd tells whether what containerd is told of registries is ours to write.
// Other than for installing it, no bundle is needed.
func (t *Target) configuresContainerd() bool {
	return t.ownsContainerd() || t.Facts.OwnContainerd && t.endpoint() == config.ContainerdSocket
}

// checkMirrors says what is left to do where the runtime is somebody else's.
func (t *Target) checkMirrors() []Finding {
	var hosts []string
	for _, r := range t.Cluster.Spec.Artifacts.Registries {
		hosts = append(hosts, r.Host)
	}
	if len(hosts) == 0 || t.configuresContainerd() {
		return nil
	}
	where := map[engine]string{
		containerd: "in " + manifests.CertsDir + "/HOST/hosts.toml, and let config_path of its /etc/containerd/config.toml lead to that folder",
		crio:       "in a file of /etc/containers/registries.conf.d",
		criDockerd: "in /etc/docker/daemon.json, where Docker knows mirrors of docker.io alone",
	}[t.engine()]
	if where == "" {
		where = "where it reads them"
	}
	return []Finding{{Name: "Mirrors", Warning: true, Message: fmt.Sprintf("the container runtime at %s is not ours to configure: tell it of the mirrors of %s yourself, %s", t.socket(), strings.Join(hosts, ", "), where)}}
}
