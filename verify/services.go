package verify

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubewright/kubewright/verify/probe"
)

// rulesLimit is for a new service to reach the rules of every node.
const rulesLimit = 15 * time.Second

// who is the URL at which serve says who answers.
func who(ip string, port int32) string {
	return "http://" + net.JoinHostPort(ip, strconv.Itoa(int(port))) + "/who"
}

// service makes one for pods with the label app=backend, unless spec selects others.
func (c *Cluster) service(ctx context.Context, ns, name string, spec corev1.ServiceSpec) (*corev1.Service, error) {
	if spec.Selector == nil && spec.Type != corev1.ServiceTypeExternalName {
		spec.Selector = map[string]string{"app": "backend"}
	}
	if spec.Ports == nil && spec.Type != corev1.ServiceTypeExternalName {
		spec.Ports = []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(probe.Port)}}
	}
	s, err := c.client.CoreV1().Services(ns).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create service %s: %w", name, err)
	}
	return s, nil
}

// awaitEndpoints waits until the slices of a service hold these pods, ready.
func (c *Cluster) awaitEndpoints(ctx context.Context, s *corev1.Service, pods ...*corev1.Pod) error {
	var want []string
	for _, p := range pods {
		want = append(want, p.Status.PodIP)
	}
	slices.Sort(want)
	w := watched{c.client.DiscoveryV1().RESTClient(), "endpointslices", s.Namespace, "", discoveryv1.LabelServiceName + "=" + s.Name}
	err := await(ctx, w, 15*time.Second, func(all []*discoveryv1.EndpointSlice) (bool, string) {
		var have []string
		for _, slice := range all {
			for _, e := range slice.Endpoints {
				if e.Conditions.Ready == nil || *e.Conditions.Ready {
					have = append(have, e.Addresses...)
				}
			}
		}
		slices.Sort(have)
		// Of a dual-stack cluster there are slices of the other family as well.
		missing := slices.ContainsFunc(want, func(ip string) bool { return !slices.Contains(have, ip) })
		return !missing, fmt.Sprintf("its endpoints are %s, its pods %s", words(have), words(want))
	})
	if err != nil {
		return fmt.Errorf("service %s: %w", s.Name, err)
	}
	return nil
}
