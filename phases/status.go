package phases

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	certutil "k8s.io/client-go/util/cert"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/pki"
)

// HostStatus is a host, or a node that no host of the document is.
type HostStatus struct {
	Host      string   `json:"host"`
	Listed    bool     `json:"listed"`    // in the document
	Reachable bool     `json:"reachable"` // over SSH
	Error     string   `json:"error,omitempty"`
	Address   string   `json:"address,omitempty"`
	Roles     []string `json:"roles,omitempty"`
	OS        string   `json:"os,omitempty"`
	Kernel    string   `json:"kernel,omitempty"`
	Machine   string   `json:"machine,omitempty"` // amd64, arm64
	// Of the node in the cluster.
	Version string `json:"version,omitempty"` // of its kubelet
	Runtime string `json:"runtime,omitempty"` // containerd://2.4.2
	Ready   string `json:"ready"`             // True, False, Unknown; empty: there is no such node
	Reason  string `json:"reason,omitempty"`  // why it is not ready
	// Of its units, as systemd has them: active, failed...
	Kubelet string `json:"kubelet,omitempty"`
	// Of its member of etcd; empty where it has none.
	Etcd        string `json:"etcd,omitempty"` // leader, voter, learner, or what is wrong
	EtcdMember  string `json:"etcdMember,omitempty"`
	EtcdBytes   int64  `json:"etcdBytes,omitempty"`
	Certificate string `json:"certificate,omitempty"` // the one that expires first
	// Expires is when that does.
	Expires *time.Time `json:"expires,omitempty"`
	// Drift is how many changes up would make on the host, or from it in the cluster; nil: nobody looked.
	Drift *int `json:"drift,omitempty"`
}

// Well tells whether there is nothing to do about a host.
func (s HostStatus) Well() bool {
	return s.Listed && s.Reachable && s.Error == "" && s.Ready == "True" && s.Kubelet == "active" &&
		(s.Drift == nil || *s.Drift == 0) && (s.Etcd == "" || s.Etcd == "leader" || s.Etcd == "voter") &&
		(s.Expires == nil || time.Until(*s.Expires) > 30*24*time.Hour)
}

// Status looks at all hosts and their nodes. What cannot be seen, it leaves out and says why.
// Prepared: Prepare has succeeded. Drift asks what Run would do.
func (u *Up) Status(ctx context.Context, prepared, drift bool) []HostStatus {
	rows := make([]HostStatus, len(u.Machines))
	var g errgroup.Group
	for i, m := range u.Machines {
		rows[i] = HostStatus{Host: m.Node.Name, Listed: true, Reachable: m.Err == nil, Address: m.Node.Address, OS: m.Facts.OS, Kernel: m.Facts.Kernel, Machine: m.Facts.Machine}
		for _, r := range m.Node.Roles {
			rows[i].Roles = append(rows[i].Roles, string(r))
		}
		if m.Err != nil {
			rows[i].Error = m.Err.Error()
			continue
		}
		g.Go(func() error {
			out, _ := m.Host.Run(ctx, host.Query("systemctl", "is-active", "kubelet"))
			rows[i].Kubelet = strings.TrimSpace(string(out.Stdout))
			rows[i].Certificate, rows[i].Expires = firstToExpire(m.Existing, kubeletCertificate(ctx, m.Host))
			return nil
		})
	}
	var nodes []addons.Object
	if prepared {
		if drift {
			g.Go(func() error { u.drift(ctx, rows); return nil })
		}
		g.Go(func() error {
			nodes, _ = u.api.List(ctx, ref("v1", "Node", "", ""), "")
			return nil
		})
		g.Go(func() error { u.etcdStatus(ctx, rows); return nil })
	}
	g.Wait()
	for _, n := range nodes {
		i := slices.IndexFunc(rows, func(r HostStatus) bool { return r.Host == n.GetName() })
		if i < 0 {
			i = len(rows)
			rows = append(rows, HostStatus{Host: n.GetName(), Address: internalIP(n)})
			if _, ok := n.GetLabels()[controlPlaneLabel]; ok {
				rows[i].Roles = []string{string(config.ControlPlaneRole)}
			}
		}
		r := &rows[i]
		r.Version, _, _ = unstructured.NestedString(n.Object, "status", "nodeInfo", "kubeletVersion")
		r.Runtime, _, _ = unstructured.NestedString(n.Object, "status", "nodeInfo", "containerRuntimeVersion")
		if r.Ready = condition(n, "Ready"); r.Ready != "True" {
			r.Reason = conditionMessage(n, "Ready")
		}
	}
	return rows
}

func internalIP(n addons.Object) string {
	list, _, _ := unstructured.NestedSlice(n.Object, "status", "addresses")
	for _, a := range list {
		if m, ok := a.(map[string]any); ok && m["type"] == "InternalIP" {
			s, _ := m["address"].(string)
			return s
		}
	}
	return ""
}

// drift counts what would be changed on each host.
func (u *Up) drift(ctx context.Context, rows []HostStatus) {
	u.planning = true
	defer func() { u.planning = false }()
	var g errgroup.Group
	for i, m := range u.Machines {
		if !u.chosen(m) {
			continue
		}
		g.Go(func() error {
			t, list := u.target(m)
			t.Report = nil
			list = without(list, "preflight")
			plan, err := Plan(ctx, list, t, u.skips(list))
			n := 0
			for _, p := range plan {
				n += len(p.Steps)
			}
			rows[i].Drift = &n
			if err != nil {
				rows[i].Error = err.Error()
			}
			return nil
		})
	}
	g.Wait()
}

// etcdStatus asks every member.
func (u *Up) etcdStatus(ctx context.Context, rows []HostStatus) {
	if u.Cluster.Spec.Etcd.External != nil {
		return
	}
	c, err := u.etcd()
	if err != nil {
		return
	}
	all, err := c.Members(ctx)
	var mu sync.Mutex
	var g errgroup.Group
	for i, m := range u.Machines {
		if !m.controlPlane() {
			continue
		}
		if err != nil {
			rows[i].Etcd = "unknown: " + err.Error()
			continue
		}
		own := u.memberOf(all, m)
		if own == nil {
			rows[i].Etcd = "no member"
			continue
		}
		g.Go(func() error {
			s, err := c.Status(ctx, own.clientURL())
			mu.Lock()
			defer mu.Unlock()
			rows[i].EtcdMember = fmt.Sprintf("%x", own.ID)
			switch {
			case err != nil:
				rows[i].Etcd = "does not answer"
			case s.Learner:
				rows[i].Etcd = "learner"
			case s.Leader == own.ID:
				rows[i].Etcd = "leader"
			default:
				rows[i].Etcd = "voter"
			}
			rows[i].EtcdBytes = s.Bytes
			return nil
		})
	}
	g.Wait()
}

// kubeletCertificate is the certificate that a kubelet keeps renewing.
func kubeletCertificate(ctx context.Context, h host.Host) []byte {
	b, err := h.ReadFile(ctx, pki.KubeletClientCurrent)
	if err != nil {
		return nil
	}
	return b
}

// firstToExpire is the certificate that does, by its path, of those on a host. The CAs are not
// counted: nobody renews them.
func firstToExpire(files map[string][]byte, kubelet []byte) (path string, at *time.Time) {
	look := func(name string, b []byte) {
		certs, err := certutil.ParseCertsPEM(b)
		if err != nil || certs[0].IsCA {
			return
		}
		if end := certs[0].NotAfter; at == nil || end.Before(*at) {
			path, at = name, &end
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b := files[name]
		switch {
		case strings.HasSuffix(name, ".crt"):
			look(name, b)
		case strings.HasSuffix(name, ".conf"):
			if conf, err := clientcmd.Load(b); err == nil {
				for _, user := range conf.AuthInfos {
					look(name, user.ClientCertificateData)
				}
			}
		}
	}
	look(pki.KubeletClientCurrent, kubelet)
	return path, at
}
