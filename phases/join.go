package phases

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/pki"
)

// Join makes a host a worker of a cluster. What the host needs of its own (binaries,
// runtime, images) is prepared while the cluster is still being found, or even made.
func Join() []Phase {
	return append(prepare(),
		Phase{Name: "discovery", Short: "find the cluster and verify that it is the right one", After: []string{"preflight"}, Run: discovery},
		Phase{Name: "tls-bootstrap", Short: "have the cluster sign the kubelet's certificate", After: []string{"kernel", "install", "discovery"}, Run: tlsBootstrap},
		Phase{Name: "mirrors", Short: "tell the container runtime where to pull images from", After: []string{"tls-bootstrap"}, Run: joinMirrors},
		Phase{Name: "endpoint", Short: "have the host know the cluster's endpoint, where no other resolves it", After: []string{"tls-bootstrap"}, Run: joinEndpoint},
		Phase{Name: "kubelet-start", Short: "configure and start the kubelet", After: []string{"wait-runtime", "mirrors", "endpoint", "images"}, Run: joinKubelet},
		Phase{Name: "load-balancer", Short: "write the manifest of what leads to the API servers, where the endpoint needs it", After: []string{"images", "kubelet-start"}, Run: loadBalancer},
		Phase{Name: "wait-kubelet", Short: "wait until the kubelet is healthy", After: []string{"kubelet-start"}, Waits: true, Run: waitKubelet},
	)
}

func discovery(ctx context.Context, t *Target) error {
	_, err := t.Discover(ctx)
	return err
}

// joined is t in the cluster that was found.
func (t *Target) joined(ctx context.Context) (*Target, *Discovery, error) {
	d, err := t.Discover(ctx)
	if err != nil {
		return nil, nil, err
	}
	own := *t
	own.API = d.API
	cluster := *d.Cluster
	own.Cluster = &cluster
	role := config.WorkerRole
	if t.controlPlane() {
		role = config.ControlPlaneRole
	}
	own.Node = d.Cluster.Node(t.Node.Name, role, t.Facts)
	for _, h := range t.Cluster.Spec.Hosts { // what was said of this host here
		if h.Name == own.Node.Name {
			own.Node = h.Over(own.Node)
		}
	}
	own.Node.RuntimeSocket = t.endpoint() // that has been prepared; hosts of a cluster may have different ones
	if t.Node.Address != "" && t.Node.Address != t.Facts.DefaultIP.String() && t.Node.Address != own.Node.Address {
		own.Node.Address, own.Node.OtherAddress = t.Node.Address, "" // somebody named it
		own.Node = d.Cluster.Addressed(own.Node, t.Facts)
	}
	if t.BindPort != 0 {
		cluster.Spec.ControlPlane.BindPort = t.BindPort
	}
	if t.Artifacts != nil {
		cluster.Spec.Artifacts = cluster.Spec.Artifacts.Clone()
		if err := t.Artifacts(&cluster.Spec.Artifacts); err != nil {
			return nil, nil, err
		}
	}
	return &own, d, nil
}

// tlsBootstrap exchanges the token for a client certificate of the kubelet. A kubelet can
// do so itself, but runs as nobody until it is done: all that it asks for meanwhile is
// refused, and it backs off for seconds. So the token never comes to lie on the host.
func tlsBootstrap(ctx context.Context, t *Target) error {
	t, d, err := t.joined(ctx)
	if err != nil {
		return err
	}
	if err := t.sameCA(ctx, d.CA); err != nil {
		return err
	}
	if err := t.checkJoin(ctx, d); err != nil {
		return err
	}
	if t.Secrets != nil && !t.Secrets.ExternalCA() { // the CA is at hand, so nobody has to be asked
		if err := t.nameIsLeft(ctx); err != nil {
			return err
		}
		if err := certs(ctx, t); err != nil {
			return err
		}
		return t.kubeconfigs(ctx, false)
	}
	infos, err := t.Host.Stat(ctx, pki.KubeletConf)
	if err != nil {
		return err
	}
	if _, ok := infos[pki.KubeletConf]; ok {
		return nil
	}
	if err := t.nameIsFree(ctx); err != nil {
		return err
	}
	key, request, err := pki.KubeletRequest(t.Node.Name)
	if err != nil {
		return err
	}
	cert, err := t.sign(ctx, request)
	if err != nil {
		return err
	}
	files, err := pki.BootstrappedKubelet(d.Cluster.Metadata.Name, d.Server, t.Node.Name, d.CA, cert, key, time.Now())
	if err != nil {
		return err
	}
	_, err = t.write(ctx, append([]host.File{{Path: pki.CA + ".crt", Content: host.Bytes(d.CA)}}, files...)...)
	return err
}

// sign has the controller manager sign a kubelet's request, and returns the certificate, PEM.
func (t *Target) sign(ctx context.Context, request []byte) ([]byte, error) {
	// As the kubelet names its own: by what it asks for.
	o := ref("certificates.k8s.io/v1", "CertificateSigningRequest", "", "node-csr-"+strings.TrimPrefix(host.Digest(request), "sha256:")[:43])
	o.Object["spec"] = map[string]any{
		"request":    base64.StdEncoding.EncodeToString(request),
		"signerName": certificatesv1.KubeAPIServerClientKubeletSignerName,
		"usages":     []any{string(certificatesv1.UsageDigitalSignature), string(certificatesv1.UsageClientAuth)},
	}
	if err := t.API.Create(ctx, o); err != nil {
		return nil, fmt.Errorf("ask for the kubelet's certificate: %w", err)
	}
	limit := t.Cluster.Spec.Timeouts.TLSBootstrap.Duration
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var refusal error
	signed, err := t.API.Until(ctx, o, func(live addons.Object) bool {
		for _, kind := range []string{"Denied", "Failed"} {
			if condition(live, kind) == "True" {
				refusal = fmt.Errorf("the cluster has not signed the kubelet's certificate: %s is %s; see `kubectl describe csr %s` on a control plane", describe(live), strings.ToLower(kind), live.GetName())
				return true
			}
		}
		cert, _, _ := unstructured.NestedString(live.Object, "status", "certificate")
		return cert != ""
	})
	if err != nil {
		return nil, fmt.Errorf("the kubelet's certificate was not signed within %s: see on a control plane whether kube-controller-manager runs, and `kubectl get csr`: %w", limit, err)
	}
	if refusal != nil {
		return nil, refusal
	}
	cert, _, _ := unstructured.NestedString(signed.Object, "status", "certificate")
	return base64.StdEncoding.DecodeString(cert)
}

func joinKubelet(ctx context.Context, t *Target) error {
	own, d, err := t.joined(ctx)
	if err != nil {
		return err
	}
	if own.Cluster.Spec.Network.UsesIPv6() && !t.Cluster.Spec.Network.UsesIPv6() { // that was not known before
		if err := kernel(ctx, own); err != nil {
			return err
		}
	}
	return own.startKubelet(ctx, d.KubeletConfiguration)
}

// sameCA refuses a host that trusts another cluster: its CA is never overwritten.
func (t *Target) sameCA(ctx context.Context, ca []byte) error {
	have, err := t.Host.ReadFile(ctx, pki.CA+".crt")
	if errors.Is(err, fs.ErrNotExist) || err == nil && bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(ca)) {
		return nil
	}
	if err != nil {
		return err
	}
	return Finding{Name: "FileAvailable--etc-kubernetes-pki-ca.crt", Message: "this host belongs to another cluster, as its CA shows: take it out with `kubewright reset`"}
}

// checkJoin is the part of preflight that needs to know the cluster.
func (t *Target) checkJoin(ctx context.Context, d *Discovery) error {
	var kubelet map[string]any
	if err := yaml.Unmarshal(d.KubeletConfiguration, &kubelet); err != nil {
		return fmt.Errorf("ConfigMap kube-system/kubelet-config: %w", err)
	}
	findings := append(checkKubelet(kubelet, t.Facts), t.checkMirrors()...)
	for _, h := range d.Cluster.Spec.Hosts {
		if h.Name == t.Node.Name && h.RuntimeSocket != "" && h.RuntimeSocket != t.endpoint() {
			findings = append(findings, Finding{Name: "CRI", Message: fmt.Sprintf("the cluster's document names the runtime at %s for this host, and join has prepared %s: run it again with --cri-socket %s", h.RuntimeSocket, t.endpoint(), h.RuntimeSocket)})
		}
	}
	if !t.Facts.Present[pki.KubeletConf] {
		findings = append(findings, overlaps(d.Cluster, t.Facts)...)
	}
	if !t.Known {
		findings = append(findings, t.checkNetwork(ctx, d.Cluster)...)
	}
	return t.judge(findings)
}

// nameIsFree refuses a second node of the same name: its kubelet would take over the first one's pods.
func (t *Target) nameIsFree(ctx context.Context) error {
	node, err := t.API.Get(ctx, ref("v1", "Node", "", t.Node.Name))
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a node named %s: %w", t.Node.Name, err)
	}
	if condition(node, "Ready") == "True" {
		return fmt.Errorf("the cluster has a node %s that is Ready: give this host another name with --node-name, or remove that node first with `kubectl delete node %s`", t.Node.Name, t.Node.Name)
	}
	return nil
}

// nameIsLeft refuses the name of a node that another machine keeps alive. One that was made anew, and
// takes its own name back, may come before the cluster has missed it: then its lease is not renewed.
func (t *Target) nameIsLeft(ctx context.Context) error {
	_, planning := t.API.(*APIRecorder)
	if t.Facts.Present[pki.KubeletConf] || planning || t.Await != nil { // nobody has a name yet
		return nil
	}
	node, err := t.API.Get(ctx, ref("v1", "Node", "", t.Node.Name))
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a node named %s: %w", t.Node.Name, err)
	}
	if id, _, _ := unstructured.NestedString(node.Object, "status", "nodeInfo", "machineID"); id == t.Facts.MachineID || condition(node, "Ready") != "True" {
		return nil
	}
	lease := ref("coordination.k8s.io/v1", "Lease", "kube-node-lease", t.Node.Name)
	last, err := t.API.Get(ctx, lease)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	renewed := func(o addons.Object) string {
		s, _, _ := unstructured.NestedString(o.Object, "spec", "renewTime")
		return s
	}
	bounded, cancel := context.WithTimeout(ctx, leaseRenewed)
	defer cancel()
	if _, err := t.API.Until(bounded, lease, func(o addons.Object) bool { return renewed(o) != renewed(last) }); err != nil {
		return ctx.Err()
	}
	return fmt.Errorf("another machine is the node %s, and alive: give this host another name, or take that one out first with `kubewright remove`", t.Node.Name)
}

// leaseRenewed is a little more than the time after which a kubelet has renewed its lease.
const leaseRenewed = 13 * time.Second

func waitKubelet(ctx context.Context, t *Target) error {
	err := until(ctx, t.Cluster.Spec.Timeouts.KubeletHealthCheck.Duration, "kubelet", func(ctx context.Context) error {
		return probe(ctx, t.Host, kubeletHealth, "/healthz")
	})
	if err != nil {
		return t.withJournal(ctx, "kubelet", err)
	}
	return nil
}

const kubeletHealth = "127.0.0.1:10248"

// JoinCommand is what a worker runs, and what `kubeadm join` understands but for its first
// word; empty where no token is left.
func (t *Target) JoinCommand(ctx context.Context) (string, error) {
	token, err := t.JoinToken(ctx)
	if err != nil || token == (addons.Token{}) {
		return "", err
	}
	server := t.server()
	if _, ok := t.Cluster.InternalEndpoint(); ok { // whoever is to type it knows no such name
		server = pki.LocalURL(t.Cluster, t.Node)
	}
	return JoinCommand(server, token, t.Secrets.CAHashes()), nil
}
