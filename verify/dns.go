package verify

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/verify/probe"
)

// dns asks for every kind of name, from a pod on every node.
func dns(ctx context.Context, c *Cluster) (string, error) {
	ns, err := c.home()
	if err != nil {
		return "", err
	}
	// A pod of its own: services of others would give it more names to be found by its address.
	named := c.pod("named", c.nodes[len(c.nodes)-1].name, "wait")
	if err := c.createPod(ctx, ns, named); err != nil {
		return "", err
	}
	web, err := c.service(ctx, ns, "dns-web", corev1.ServiceSpec{Selector: map[string]string{"app": "none"}})
	if err != nil {
		return "", err
	}
	headless, err := c.service(ctx, ns, "dns-headless", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: named.Labels})
	if err != nil {
		return "", err
	}
	// Only its CNAME is asked for: what it leads to is not the cluster's, which may have no way out.
	const outside = "example.org"
	if _, err := c.service(ctx, ns, "dns-alias", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: outside}); err != nil {
		return "", err
	}
	pod, err := c.awaitPod(ctx, ns, named.Name)
	if err != nil {
		return "", err
	}
	if err := c.awaitEndpoints(ctx, headless, pod); err != nil {
		return "", err
	}
	ip, in := pod.Status.PodIP, "."+ns+".svc.{domain}"
	var mu sync.Mutex
	server := ""
	err = c.onEveryNode(func(p *pair) error {
		from, err := p.pod()
		if err != nil {
			return err
		}
		asked, err := c.lookUp(ctx, from,
			probe.Query{Kind: "service", Type: addressType(web.Spec.ClusterIP), Name: "dns-web" + in, Want: []string{web.Spec.ClusterIP}},
			probe.Query{Kind: "headless service", Type: addressType(ip), Name: "dns-headless" + in, Want: []string{ip}},
			probe.Query{Kind: "pod", Type: addressType(ip), Name: dashed(ip) + "." + ns + ".pod.{domain}", Want: []string{ip}},
			probe.Query{Kind: "ExternalName", Type: "CNAME", Name: "dns-alias" + in, Want: []string{outside}},
			probe.Query{Kind: "reverse of the service", Type: "PTR", Name: web.Spec.ClusterIP, Want: []string{"dns-web" + in}},
			probe.Query{Kind: "reverse of the pod", Type: "PTR", Name: ip, Want: []string{dashed(ip) + ".dns-headless" + in}},
		)
		mu.Lock()
		defer mu.Unlock()
		server = cmp.Or(asked, server)
		if err != nil {
			return fmt.Errorf("node %s: %w", p.node.name, err)
		}
		return nil
	})
	if err != nil && server != "" {
		err = lines(err, fmt.Errorf("about %s: %s", server, c.dnsState(ctx, server)))
	}
	return fmt.Sprintf("service, headless service, pod, ExternalName and reverse look-ups answered by %s in pods of %s", server, c.nodeNames()), err
}

// dnsLimit is for CoreDNS to hear of a new service.
const dnsLimit = 15 * time.Second

// lookUp asks from a pod until all answers are as wanted, and tells which server was asked.
func (c *Cluster) lookUp(ctx context.Context, from *corev1.Pod, queries ...probe.Query) (server string, err error) {
	got, err := ask[probe.LookedUp](ctx, c, from, "look-up", probe.LookUp{Queries: queries, Within: dnsLimit})
	if err != nil {
		return "", err
	}
	return got.Server, judgeAnswers(got.Answers)
}

func judgeAnswers(answers []probe.Answer) error {
	var errs []error
	for _, a := range answers {
		what := fmt.Sprintf("%s, %s %s", a.Query.Kind, a.Query.Type, a.Query.Name)
		switch {
		case a.Good():
		case a.Error != "":
			errs = append(errs, fmt.Errorf("%s: %s", what, a.Error))
		case len(a.Values) == 0:
			errs = append(errs, fmt.Errorf("%s: no such record", what))
		default:
			errs = append(errs, fmt.Errorf("%s: answer %s, want %s", what, words(a.Values), words(a.Query.Want)))
		}
	}
	if len(errs) == len(answers) && len(errs) > 1 {
		return fmt.Errorf("none of %d look-ups went well, the first: %w", len(answers), errs[0])
	}
	return lines(errs...)
}

// dnsState says who answers at the address that pods ask.
func (c *Cluster) dnsState(ctx context.Context, server string) string {
	list, err := c.client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	i := slices.IndexFunc(list.Items, func(s corev1.Service) bool { return slices.Contains(s.Spec.ClusterIPs, server) })
	if i < 0 {
		return "no Service has this address, which the kubelets give to pods as their DNS server; it is normally kube-system/kube-dns"
	}
	s := list.Items[i]
	es, err := c.client.DiscoveryV1().EndpointSlices(s.Namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + s.Name})
	if err != nil {
		return err.Error()
	}
	var ready []string
	for _, slice := range es.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready = append(ready, e.Addresses...)
			}
		}
	}
	return fmt.Sprintf("it is Service %s/%s, with %d ready endpoints: %s", s.Namespace, s.Name, len(ready), words(ready))
}

func dashed(ip string) string { return strings.NewReplacer(".", "-", ":", "-").Replace(ip) }

// addressType is the type of records for addresses of the same family.
func addressType(ip string) string {
	if a, err := netip.ParseAddr(ip); err == nil && a.Is6() {
		return "AAAA"
	}
	return "A"
}
