package phases

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// wantedLabels are those of the document, which a kubelet may set in part, and only when it registers its
// node, and those of the role.
func wantedLabels(n config.Node) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, n.Labels)
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

// markedAnnotation of a Node names the labels and taints that the document gave it, so that they go when it
// has them no longer. Those of the role stay, as kubeadm's do; others are somebody else's.
const markedAnnotation = "kubewright.dev/marked"

// mark makes the labels and taints of a live Node those that are wanted, and tells whether it has changed any.
func mark(live addons.Object, n config.Node) bool {
	var node corev1.Node
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, &node); err != nil {
		return false
	}
	before := node.DeepCopy()
	labels, taints := wantedLabels(n), wantedTaints(n)
	var marked []string
	for k := range n.Labels {
		marked = append(marked, "label "+k)
	}
	for _, t := range n.Taints {
		marked = append(marked, taintName(t))
	}
	slices.Sort(marked)
	for _, old := range strings.Split(node.Annotations[markedAnnotation], ",") {
		if slices.Contains(marked, old) {
			continue
		}
		if label, ok := strings.CutPrefix(old, "label "); ok {
			delete(node.Labels, label)
		}
		node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, func(t corev1.Taint) bool { return taintName(t) == old })
	}
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	maps.Copy(node.Labels, labels)
	for _, want := range taints {
		if i := slices.IndexFunc(node.Spec.Taints, func(have corev1.Taint) bool { return have.MatchTaint(&want) }); i < 0 {
			node.Spec.Taints = append(node.Spec.Taints, want)
		} else {
			node.Spec.Taints[i].Value = want.Value
		}
	}
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	if node.Annotations[markedAnnotation] = strings.Join(marked, ","); len(marked) == 0 {
		delete(node.Annotations, markedAnnotation)
	}
	if len(node.Labels) == 0 {
		node.Labels = nil
	}
	if equality.Semantic.DeepEqual(before.Labels, node.Labels) && equality.Semantic.DeepEqual(before.Annotations, node.Annotations) &&
		equality.Semantic.DeepEqual(before.Spec.Taints, node.Spec.Taints) {
		return false
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&node)
	if err != nil {
		return false
	}
	live.SetLabels(node.Labels)
	live.SetAnnotations(node.Annotations)
	live.Object["spec"] = content["spec"]
	return true
}

func taintName(t corev1.Taint) string { return "taint " + t.Key + ":" + string(t.Effect) }

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
