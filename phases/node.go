package phases

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// wantedLabels are those that the API has to set: a kubelet may not.
func wantedLabels(n config.Node) map[string]string {
	labels := map[string]string{}
	for k, v := range n.Labels {
		if !manifests.KubeletMaySet(k) {
			labels[k] = v
		}
	}
	if n.Has(config.ControlPlaneRole) {
		labels[controlPlaneLabel] = ""
		labels[corev1.LabelNodeExcludeBalancers] = ""
	}
	return labels
}

// wantedTaints are those of the document, else the one that keeps work off a control
// plane that is not a worker as well.
func wantedTaints(n config.Node) []corev1.Taint {
	if n.Taints != nil {
		return n.Taints
	}
	if n.Has(config.ControlPlaneRole) && !n.Has(config.WorkerRole) {
		return []corev1.Taint{{Key: controlPlaneLabel, Effect: corev1.TaintEffectNoSchedule}}
	}
	return nil
}

// mark adds to a live Node the labels and taints that it lacks, and tells whether it lacked any.
func mark(live addons.Object, n config.Node) bool {
	changed := false
	labels := live.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	for k, v := range wantedLabels(n) {
		if have, ok := labels[k]; !ok || have != v {
			labels[k], changed = v, true
		}
	}
	live.SetLabels(labels)
	var node corev1.Node
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, &node); err != nil {
		return changed
	}
	for _, want := range wantedTaints(n) {
		found := false
		for _, have := range node.Spec.Taints {
			found = found || have.MatchTaint(&want)
		}
		if !found {
			node.Spec.Taints = append(node.Spec.Taints, want)
			changed = true
		}
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&node)
	if err != nil {
		return changed
	}
	live.Object["spec"] = content["spec"]
	return changed
}

// probe asks a health endpoint on a host's loopback. The certificates there are made by
// the components themselves at their start and nobody else's, so they cannot be verified;
// nothing is sent, and only "200" is believed.
func probe(ctx context.Context, h host.Host, addr, path string) error {
	scheme := "https"
	if strings.HasSuffix(addr, ":10248") { // the kubelet's
		scheme = "http"
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DialContext:       func(ctx context.Context, network, addr string) (net.Conn, error) { return h.Dial(ctx, network, addr) },
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // #nosec G402: see above
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s%s says %s: %s", addr, path, resp.Status, strings.TrimSpace(string(body)))
	}
	return nil
}
