package verify

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// dns asks for every kind of name, from a pod on every node.
func dns(ctx context.Context, c *Cluster) (string, error) {
	ns, err := c.namespace(ctx, "4")
	if err != nil {
		return "", err
	}
	pods, err := c.backends(ctx, ns, c.nodes[len(c.nodes)-1])
	if err != nil {
		return "", err
	}
	// Without endpoints, or the pod would have a second name to look up by its address.
	web, err := c.service(ctx, ns, "web", corev1.ServiceSpec{Selector: map[string]string{"app": "none"}})
	if err != nil {
		return "", err
	}
	headless, err := c.service(ctx, ns, "headless", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone})
	if err != nil {
		return "", err
	}
	// Only its CNAME is asked for: what it leads to is not the cluster's, which may have no way out.
	const outside = "example.org"
	if _, err := c.service(ctx, ns, "alias", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: outside}); err != nil {
		return "", err
	}
	if err := c.awaitEndpoints(ctx, headless, pods...); err != nil {
		return "", err
	}
	podIP := pods[0].Status.PodIP
	servers := make(chan string, len(c.nodes))
	err = c.onEveryNode(func(p *probe) error {
		from, err := p.pod()
		if err != nil {
			return err
		}
		r, err := c.resolver(ctx, from)
		if err != nil {
			return fmt.Errorf("node %s: %w", p.node.name, err)
		}
		servers <- r.server
		in := "." + ns + ".svc." + r.domain
		err = c.lookUp(ctx, from, []query{
			{"service", addressType(web.Spec.ClusterIP) + " web" + in, []string{web.Spec.ClusterIP}},
			{"headless service", addressType(podIP) + " headless" + in, []string{podIP}},
			{"pod", addressType(podIP) + " " + dashed(podIP) + "." + ns + ".pod." + r.domain, []string{podIP}},
			{"ExternalName", "-type=cname alias" + in, []string{outside}},
			{"reverse of the service", web.Spec.ClusterIP, []string{"web" + in}},
			{"reverse of the pod", podIP, []string{dashed(podIP) + ".headless" + in}},
		})
		if err != nil {
			return fmt.Errorf("node %s: %w", p.node.name, err)
		}
		return nil
	})
	close(servers)
	server := <-servers
	if err != nil && server != "" {
		err = lines(err, fmt.Errorf("about %s: %s", server, c.dnsState(ctx, server)))
	}
	return fmt.Sprintf("service, headless service, pod, ExternalName and reverse look-ups answered by %s in pods of %s", server, c.nodeNames()), err
}

// resolver is what a pod's /etc/resolv.conf says.
type resolver struct{ server, domain string }

func (c *Cluster) resolver(ctx context.Context, p *corev1.Pod) (resolver, error) {
	out, err := c.sh(ctx, p, "cat /etc/resolv.conf")
	if err != nil {
		return resolver{}, err
	}
	r := parseResolver(out)
	if r.server == "" || r.domain == "" {
		return r, fmt.Errorf("/etc/resolv.conf of pod %s names no server or no cluster domain, which are the kubelet's clusterDNS and clusterDomain: %q", p.Name, out)
	}
	return r, nil
}

func parseResolver(conf string) (r resolver) {
	for line := range strings.Lines(conf) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && f[0] == "nameserver" && r.server == "":
			r.server = f[1]
		case len(f) > 1 && f[0] == "search":
			for _, s := range f[1:] {
				if domain, ok := strings.CutPrefix(s, "svc."); ok {
					r.domain = domain
				}
			}
		}
	}
	return r
}

// query is one call of nslookup.
type query struct {
	kind string
	args string
	want []string // sorted
}

// lookUpScript asks all its arguments at once, and puts their number before every line.
const lookUpScript = `i=0; for q; do i=$((i+1)); ( timeout 4 nslookup $q 2>&1 | sed "s/^/$i /" ) & done; wait`

// lookUp asks from a pod until all answers are as wanted: CoreDNS hears of a new service a
// moment later.
func (c *Cluster) lookUp(ctx context.Context, from *corev1.Pod, queries []query) error {
	var args []string
	for _, q := range queries {
		args = append(args, q.args)
	}
	return until(ctx, 15*time.Second, func(ctx context.Context) error {
		out, err := c.sh(ctx, from, lookUpScript, args...)
		if err != nil {
			return err
		}
		return judgeAnswers(out, queries)
	})
}

var answerLine = regexp.MustCompile(`^(?:Address: |.*name = )(\S+)$`)

func judgeAnswers(out string, queries []query) error {
	got, said := map[int][]string{}, map[int]string{}
	for line := range strings.Lines(out) {
		number, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		if m := answerLine.FindStringSubmatch(text); m != nil {
			got[n] = append(got[n], m[1])
		} else if strings.HasPrefix(text, "**") || strings.HasPrefix(text, ";;") {
			said[n] = ": " + strings.Trim(text, "*; ")
		}
	}
	var errs []error
	for i, q := range queries {
		have := got[i+1]
		slices.Sort(have)
		switch {
		case slices.Equal(have, q.want):
		case len(have) == 0:
			errs = append(errs, fmt.Errorf("%s, nslookup %s: no answer%s", q.kind, q.args, said[i+1]))
		default:
			errs = append(errs, fmt.Errorf("%s, nslookup %s: answer %v, want %v", q.kind, q.args, have, q.want))
		}
	}
	if len(errs) == len(queries) && len(errs) > 1 {
		return fmt.Errorf("none of %d look-ups went well, the first: %w", len(queries), errs[0])
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
	return fmt.Sprintf("it is Service %s/%s, with %d ready endpoints %v", s.Namespace, s.Name, len(ready), ready)
}

func dashed(ip string) string { return strings.NewReplacer(".", "-", ":", "-").Replace(ip) }

// addressType is nslookup's option for addresses of the same family.
func addressType(ip string) string {
	if a, err := netip.ParseAddr(ip); err == nil && a.Is6() {
		return "-type=aaaa"
	}
	return "-type=a"
}
