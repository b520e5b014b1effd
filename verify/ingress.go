package verify

import (
	"context"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubewright/kubewright/verify/probe"
)

// ingress routes one host's path through the node port of a controller, and wants another host refused.
func ingress(ctx context.Context, c *Cluster) (string, error) {
	classes, err := c.client.NetworkingV1().IngressClasses().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("list ingress classes: %w", err)
	}
	if len(classes.Items) == 0 {
		return "", skip("no ingress controller is installed: there is no IngressClass")
	}
	port := c.controllerPort(ctx)
	if port == 0 {
		return "", skip("no Service of an ingress controller (app.kubernetes.io/name traefik or ingress-nginx) has a node port named web or http")
	}
	pods, err := c.backends()
	if err != nil {
		return "", err
	}
	s, err := c.service(ctx, pods[0].Namespace, "routed", corev1.ServiceSpec{})
	if err != nil {
		return "", err
	}
	const host = "verify.kubewright.test"
	_, err = c.client.NetworkingV1().Ingresses(pods[0].Namespace).Create(ctx, &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "routed"},
		Spec: networkingv1.IngressSpec{IngressClassName: &classes.Items[0].Name, Rules: []networkingv1.IngressRule{{Host: host,
			IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
				Path: "/who", PathType: ptr.To(networkingv1.PathTypePrefix),
				Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: s.Name, Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("create Ingress: %w", err)
	}
	from, err := c.lastProbe()
	if err != nil {
		return "", err
	}
	at := net.JoinHostPort(c.nodes[0].ip, strconv.Itoa(int(port)))
	if err := c.get(ctx, from, probe.Get{URLs: []string{"http://" + at + "/who"}, Host: host, By: podNames(pods), Within: startLimit}); err != nil {
		return "", fmt.Errorf("host %s, path /who: %w", host, err)
	}
	for _, other := range []probe.Get{{URLs: []string{"http://" + at + "/who"}, Host: "other." + host}, {URLs: []string{"http://" + at + "/other"}, Host: host}} {
		other.By = podNames(pods)
		if err := c.get(ctx, from, other); err == nil {
			return "", fmt.Errorf("%s of host %s has no rule, and was answered", other.URLs[0], other.Host)
		}
	}
	return fmt.Sprintf("class %s routes http://%s/who at node port %d to its service, another host and another path nowhere", classes.Items[0].Name, host, port), nil
}

// controllerPort is the node port for HTTP of an ingress controller; 0: none.
func (c *Cluster) controllerPort(ctx context.Context) int32 {
	list, err := c.client.CoreV1().Services("").List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name in (traefik, ingress-nginx)"})
	if err != nil {
		return 0
	}
	for _, s := range list.Items {
		for _, p := range s.Spec.Ports {
			if p.NodePort > 0 && (p.Name == "web" || p.Name == "http") {
				return p.NodePort
			}
		}
	}
	return 0
}
