package phases

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/config/kubeadm"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// Discovery is a cluster as a joining host sees it.
type Discovery struct {
	Server               string          // URL of the API
	CA                   []byte          // PEM
	Cluster              *config.Cluster // as the cluster keeps it, completed
	KubeletConfiguration []byte          // YAML, of all nodes
	Lock                 []byte          // the cluster's artifact lock, YAML; nil where it has none, as those of kubeadm
	API                  API             // with the rights of the bootstrap token

	at string // HOST:PORT where it was found by token
}

// DiscoverOptions say how to find a cluster, and how to know that it is the right one.
type DiscoverOptions struct {
	Endpoint string // HOST:PORT
	Token    addons.Token
	Pins     []string // sha256:HEX of a CA's public key
	SkipCA   bool     // believe whoever knows the token
	// Kubeconfig, instead of all above, names the cluster and its CA, and may hold credentials.
	Kubeconfig []byte
	TLSToken   addons.Token    // that the join's requests show; zero: Token, or the credentials of Kubeconfig
	Timeouts   config.Timeouts // of this host's own; the rest is the cluster's
	Timeout    time.Duration
	Waiting    func(err error) // told once, when the cluster does not answer yet
}

// Discover gives a function that finds the cluster at its first call and remembers it.
func Discover(h host.Host, o DiscoverOptions) func(context.Context) (*Discovery, error) {
	var mu sync.Mutex
	var found *Discovery
	return func(ctx context.Context) (*Discovery, error) {
		mu.Lock()
		defer mu.Unlock()
		if found != nil {
			return found, nil
		}
		d, err := discover(ctx, h, o)
		if err == nil {
			found = d
		}
		return d, err
	}
}

// finalError is one that waiting does not mend.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// discover finds the cluster, and reads its configuration from the server that it names
// under the CA that it holds.
func discover(ctx context.Context, h host.Host, o DiscoverOptions) (*Discovery, error) {
	d := &Discovery{}
	find := d.byToken
	shown := "the token " + first(o.TLSToken, o.Token).String()
	if o.Kubeconfig != nil {
		find = d.byFile
		if o.TLSToken == (addons.Token{}) {
			shown = "the credentials of the discovery file"
		}
	}
	conf, err := find(ctx, h, o)
	if err != nil {
		return nil, err
	}
	client, err := NewClient(d.door(h), conf)
	if err != nil {
		return nil, err
	}
	d.API = client
	err = untilFinal(ctx, o.Timeout, "configuration of the cluster at "+d.Server, func(ctx context.Context) error {
		err := d.read(ctx)
		if apierrors.IsUnauthorized(err) {
			return finalError{fmt.Errorf("%s does not accept %s: it has expired or was deleted; make a new one on a control plane with `kubewright token create --print-join-command`", d.Server, shown)}
		}
		return err
	})
	if err == nil {
		d.Cluster.Spec.Timeouts = o.Timeouts.Over(d.Cluster.Spec.Timeouts)
		d.API = client.Within(d.Cluster.Spec.Timeouts.KubernetesAPICall.Duration)
	}
	return d, err
}

// door is the host, from which the server can be reached. Where that has a name that only hosts of the cluster
// know, and this one is yet to learn it, the way leads to where the cluster was found.
func (d *Discovery) door(h host.Host) host.Host {
	name := strings.TrimPrefix(d.Server, "https://")
	c := config.Cluster{Spec: config.Spec{ControlPlane: config.ControlPlane{Endpoint: name}}}
	if _, ok := c.InternalEndpoint(); !ok || d.at == "" {
		return h
	}
	return through{h, name, d.at}
}

// reachable is the server for a host that is yet to join: where only the cluster's own know its name, it is the
// first control plane of the document. Then hosts are the lines by which a host knows the name, too.
func (d *Discovery) reachable(ctx context.Context, server string) (at string, hosts []string, err error) {
	own, err := d.configMap(ctx, "kube-system", addons.ConfigName)
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return server, nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	c, err := config.Parse([]byte(own[addons.ClusterKey]))
	if err != nil {
		return "", nil, fmt.Errorf("ConfigMap kube-system/%s: %w", addons.ConfigName, err)
	}
	planes := c.ControlPlanes()
	if _, ok := c.InternalEndpoint(); !ok || len(planes) == 0 {
		return server, nil, nil
	}
	if hosts, err = manifests.HostsLines(c, config.Node{}); err != nil {
		return "", nil, err
	}
	return pki.LocalURL(c, planes[0]), hosts[1:], nil // the first is loopback, where nothing answers on such a host
}

// byToken reads cluster-info without trusting anybody and verifies it. It returns the
// kubeconfig for the requests of the join.
func (d *Discovery) byToken(ctx context.Context, h host.Host, o DiscoverOptions) ([]byte, error) {
	waiting := o.Waiting
	err := untilFinal(ctx, o.Timeout, "cluster at "+o.Endpoint, func(ctx context.Context) error {
		info, err := insecureClusterInfo(ctx, h, o.Endpoint)
		if err != nil {
			if waiting != nil {
				waiting(err)
				waiting = nil
			}
			return err
		}
		server, ca, err := addons.VerifyClusterInfo(info, o.Token, o.Pins, o.SkipCA)
		if err != nil {
			return finalError{err}
		}
		d.Server, d.CA, d.at = server, ca, o.Endpoint
		return nil
	})
	if err != nil {
		return nil, err
	}
	// The kubeconfig is ours alone and stays in memory; its name reaches nobody.
	return pki.BootstrapKubeconfig("kubernetes", d.Server, d.CA, first(o.TLSToken, o.Token).Reveal())
}

func first(a, b addons.Token) addons.Token {
	if a == (addons.Token{}) {
		return b
	}
	return a
}

// untilFinal is until, ended at once by a finalError.
func untilFinal(ctx context.Context, limit time.Duration, what string, look func(context.Context) error) error {
	var final finalError
	err := until(ctx, limit, what, func(ctx context.Context) error {
		err := look(ctx)
		if errors.As(err, &final) {
			return nil
		}
		return err
	})
	if err == nil && final.error != nil {
		return final.error
	}
	return err
}

// insecureClusterInfo asks whoever answers: what comes back is verified by its signature
// and by the pins, not by the connection.
func insecureClusterInfo(ctx context.Context, h host.Host, endpoint string) (*corev1.ConfigMap, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext:       func(ctx context.Context, network, addr string) (net.Conn, error) { return h.Dial(ctx, network, addr) },
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // #nosec G402: see above
		DisableKeepAlives: true,
	}}
	url := "https://" + endpoint + "/api/v1/namespaces/kube-public/configmaps/cluster-info"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: is the address right, is the API server up, and does a firewall let this host reach it?", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("no cluster-info at %s yet: %s: has `kubewright init` (or `kubeadm init`) finished there?", endpoint, resp.Status)
	}
	var info corev1.ConfigMap
	if err := yaml.Unmarshal(body, &info); err != nil {
		return nil, fmt.Errorf("cluster-info at %s: %w", endpoint, err)
	}
	return &info, nil
}

// read takes the cluster's own description: ours where there is one, else kubeadm's.
func (d *Discovery) read(ctx context.Context) error {
	kubelet, err := d.data(ctx, "kube-system", "kubelet-config", "kubelet")
	if err != nil {
		return err
	}
	d.KubeletConfiguration = []byte(kubelet)
	own, err := d.configMap(ctx, "kube-system", addons.ConfigName)
	switch {
	case err == nil:
		d.Cluster, err = config.Parse([]byte(own[addons.ClusterKey]))
		if lock, ok := own[addons.LockKey]; ok {
			d.Lock = []byte(lock)
		}
	case apierrors.IsNotFound(err) || apierrors.IsForbidden(err):
		// RBAC hides from a token what a kubeadm cluster never had.
		var theirs string
		if theirs, err = d.data(ctx, "kube-system", "kubeadm-config", "ClusterConfiguration"); err == nil {
			d.Cluster, err = kubeadm.ReadClusterConfiguration([]byte(theirs))
		}
	}
	if err != nil {
		return err
	}
	d.Cluster.Default(config.Versions{})
	return nil
}

func (d *Discovery) configMap(ctx context.Context, namespace, name string) (map[string]string, error) {
	cm, err := d.API.Get(ctx, ref("v1", "ConfigMap", namespace, name))
	if err != nil {
		return nil, err
	}
	var typed corev1.ConfigMap
	err = runtime.DefaultUnstructuredConverter.FromUnstructured(cm.Object, &typed)
	return typed.Data, err
}

// data reads one key of a ConfigMap.
func (d *Discovery) data(ctx context.Context, namespace, name, key string) (string, error) {
	all, err := d.configMap(ctx, namespace, name)
	if err != nil {
		return "", err
	}
	v, ok := all[key]
	if !ok {
		return "", fmt.Errorf("ConfigMap %s/%s has no key %s", namespace, name, key)
	}
	return v, nil
}

// JoinCommand is what a worker runs; `kubeadm join` takes the same arguments. Server is a URL.
func JoinCommand(server string, token addons.Token, pins []string) string {
	cmd := "kubewright join " + strings.TrimPrefix(server, "https://") + " --token " + token.Reveal()
	for _, p := range pins {
		cmd += " --discovery-token-ca-cert-hash " + p
	}
	return cmd
}

func isNotFound(err error) bool { return apierrors.IsNotFound(err) }

// condition is the status of a live object's condition: True, False, Unknown or "".
func condition(o addons.Object, kind string) string {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range list {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			s, _ := m["status"].(string)
			return s
		}
	}
	return ""
}
