package phases

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/pki"
)

// evidence is what a host is asked for, by the name of the file that gets it. None of it holds a secret of the cluster.
var evidence = map[string][]string{
	"journal.log":    {"journalctl", "--no-pager", "--boot", "--output=short-iso-precise", "--lines=100000"},
	"kubelet.log":    {"journalctl", "--no-pager", "--boot", "--output=short-iso-precise", "--lines=100000", "--unit=kubelet"},
	"containerd.log": {"journalctl", "--no-pager", "--boot", "--output=short-iso-precise", "--lines=100000", "--unit=containerd"},
	"units.txt":      {"systemctl", "list-units", "--all", "--no-pager", "--plain"},
	"failed.txt":     {"systemctl", "status", "--failed", "--no-pager", "--full"},
	"processes.txt":  {"ps", "-eo", "pid,ppid,user,stat,rss,etime,args"},
	"addresses.txt":  {"ip", "address"},
	"routes.txt":     {"ip", "route", "show", "table", "all"},
	"routes6.txt":    {"ip", "-6", "route", "show", "table", "all"},
	"sockets.txt":    {"ss", "--all", "--numeric", "--processes", "--tcp", "--udp"},
	"nftables.txt":   {"nft", "list", "ruleset"},
	"iptables.txt":   {"iptables-save"},
	"disks.txt":      {"df", "-h"},
	"inodes.txt":     {"df", "-i"},
	"memory.txt":     {"cat", "/proc/meminfo"},
	"mounts.txt":     {"cat", "/proc/mounts"},
	"hosts.txt":      {"cat", "/etc/hosts", "/etc/resolv.conf"},
	"steps.jsonl":    {"cat", journalPath},
	"kubelet.yaml":   {"cat", "/var/lib/kubelet/config.yaml"},
	// Beside them lie kubeconfigs of networks.
	"cni.txt": {"find", "/etc/cni/net.d", "-type", "f", "(", "-name", "*.conf", "-o", "-name", "*.conflist", ")", "-exec", "tail", "-v", "-n", "+1", "{}", "+"},
}

// folders are those of a host that are copied whole.
var folders = map[string]string{
	"pods":      "/var/log/pods", // what containers print, of which the kubelet keeps the last tens of megabytes each
	"manifests": "/etc/kubernetes/manifests",
}

// Evidence writes into a folder here what helps to find out what is wrong with a host. What the host does not have
// is listed in missing.txt.
func (m *Machine) Evidence(ctx context.Context, c *config.Cluster, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if m.Err != nil {
		return m.Err
	}
	var g errgroup.Group
	g.SetLimit(4)
	var mu sync.Mutex
	var missing []string
	try := func(name string, get func() error) {
		g.Go(func() error {
			if err := get(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, fmt.Sprintf("%s: %v\n", name, err))
			}
			return ctx.Err()
		})
	}
	for name, argv := range evidence {
		try(name, func() error {
			b, err := m.said(ctx, argv)
			return errors.Join(err, keep(dir, name, b))
		})
	}
	try("containers.json", func() error {
		b, err := m.containers(ctx, c)
		return errors.Join(err, keep(dir, "containers.json", b))
	})
	for name, from := range folders {
		try(name, func() error { return m.copyFolder(ctx, from, filepath.Join(dir, name)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	slices.Sort(missing)
	return keep(dir, "missing.txt", []byte(strings.Join(missing, "")))
}

// keep writes a file, unless there is nothing to write.
func keep(dir, name string, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, name), b, 0o644)
}

// said is what a command prints, also where it fails.
func (m *Machine) said(ctx context.Context, argv []string) ([]byte, error) {
	out, err := m.Host.Run(ctx, host.Query(argv...))
	var failed *host.ExitError
	if errors.As(err, &failed) && len(out.Stdout) > 0 {
		err = nil // it has said something: systemctl status fails where a unit has
	}
	return out.Stdout, err
}

// containers are those of the runtime, with their states.
func (m *Machine) containers(ctx context.Context, c *config.Cluster) ([]byte, error) {
	t := &Target{Cluster: c, Node: m.Node, Host: m.Host, Facts: m.Facts}
	var have struct {
		Sandboxes  []*cri.PodSandbox
		Containers []*cri.Container
	}
	err := t.callRuntime(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		runtime := cri.NewRuntimeServiceClient(conn)
		s, err := runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		all, err := runtime.ListContainers(ctx, &cri.ListContainersRequest{})
		have.Sandboxes, have.Containers = s.GetItems(), all.GetContainers()
		return err
	})
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(have, "", "  ")
}

// copyFolder copies a folder of the host; a missing one is none.
func (m *Machine) copyFolder(ctx context.Context, from, to string) error {
	if _, err := m.Host.List(ctx, from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	out, err := m.Host.Run(ctx, host.Query("tar", "--create", "--ignore-failed-read", "--directory", from, "."))
	var failed *host.ExitError
	if errors.As(err, &failed) && failed.Code == 1 {
		err = nil // a file has grown meanwhile
	}
	if err != nil {
		return err
	}
	return unpack(bytes.NewReader(out.Stdout), to)
}

// unpack writes the files of an archive, and nothing but files, below a folder.
func unpack(r io.Reader, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(to) // whatever the archive calls them
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		name := path.Clean(h.Name)
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, t)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}

// seen are the kinds of objects that tell how a cluster is. Secrets are none of them.
var seen = map[string][2]string{
	"nodes.json": {"v1", "Node"}, "events.json": {"v1", "Event"}, "pods.json": {"v1", "Pod"}, "services.json": {"v1", "Service"},
	"namespaces.json": {"v1", "Namespace"}, "volumes.json": {"v1", "PersistentVolume"}, "claims.json": {"v1", "PersistentVolumeClaim"},
	"deployments.json": {"apps/v1", "Deployment"}, "daemonsets.json": {"apps/v1", "DaemonSet"}, "statefulsets.json": {"apps/v1", "StatefulSet"},
	"replicasets.json": {"apps/v1", "ReplicaSet"}, "jobs.json": {"batch/v1", "Job"}, "leases.json": {"coordination.k8s.io/v1", "Lease"},
	"endpointslices.json": {"discovery.k8s.io/v1", "EndpointSlice"}, "signings.json": {"certificates.k8s.io/v1", "CertificateSigningRequest"},
}

// ClusterEvidence writes into a folder here what the API server of the first control plane that has one says of the
// cluster's objects.
func ClusterEvidence(ctx context.Context, c *config.Cluster, machines []*Machine, dir string) error {
	err := errors.New("no control plane could be asked")
	for _, m := range machines {
		if !m.controlPlane() || m.Err != nil {
			continue
		}
		if err = m.objects(ctx, c, dir); err == nil {
			return nil
		}
		err = fmt.Errorf("%s: %w", m.Node.Name, err)
	}
	return err
}

func (m *Machine) objects(ctx context.Context, c *config.Cluster, dir string) error {
	admin, err := m.Host.ReadFile(ctx, pki.AdminConf)
	if err != nil {
		return err
	}
	api, err := NewClient(m.ownAPI(c), admin)
	if err != nil {
		return err
	}
	api = api.Within(10 * time.Second) // for each kind
	if err := api.Ready(ctx, "/livez"); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var g errgroup.Group
	for name, kind := range seen {
		g.Go(func() error {
			list, err := api.List(ctx, ref(kind[0], kind[1], "", ""), "")
			if err != nil {
				return err
			}
			b, err := json.MarshalIndent(list, "", "  ")
			if err != nil {
				return err
			}
			return keep(dir, name, b)
		})
	}
	return g.Wait()
}
