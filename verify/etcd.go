package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// memberList is the notes' command. It has no sh -c around it: upstream's image has no shell. Etcd on a host
// with an IPv6 address listens on the loopback of that family.
func memberList(host string) []string {
	loopback := "127.0.0.1"
	if strings.Contains(host, ":") {
		loopback = "[::1]"
	}
	return strings.Fields("etcdctl --endpoints=https://" + loopback + `:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt
	--cert=/etc/kubernetes/pki/etcd/peer.crt --key=/etc/kubernetes/pki/etcd/peer.key member list`)
}

// etcdMembers asks every etcd pod for the members: one for each pod, all started.
func etcdMembers(ctx context.Context, c *Cluster) (string, error) {
	servers, err := c.servers()
	if err != nil {
		return "", err
	}
	list, err := c.staticPods(ctx, "etcd", func(n node) bool { return servers[n.name].Local() })
	if err != nil {
		return "", err
	}
	if len(list) == 0 {
		return "", skip("no etcd runs as a static pod here: it is on other hosts, or someone else's")
	}
	var nodes []string
	for _, p := range list {
		nodes = append(nodes, p.Spec.NodeName)
	}
	slices.Sort(nodes)
	err = onEach(list, func(p corev1.Pod) error {
		out, errOut, err := c.exec(ctx, &p, "", memberList(p.Status.HostIP)...)
		if err != nil {
			return fmt.Errorf("%w: %s; %s", err, strings.TrimSpace(errOut), podState(&p))
		}
		if err := judgeMembers(out, nodes); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		return nil
	})
	return fmt.Sprintf("%d members, all started: %s", len(nodes), strings.Join(nodes, " ")), err
}

// judgeMembers: a line is ID, state, name, peer URLs, client URLs, whether it is a learner.
func judgeMembers(out string, nodes []string) error {
	var names []string
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), ", ")
		if len(f) != 6 {
			return fmt.Errorf("etcdctl member list says %q", line)
		}
		if f[1] != "started" {
			return fmt.Errorf("member %s at %s is %s", f[0], f[3], f[1])
		}
		if f[5] == "true" {
			return errors.New("member " + f[2] + " is a learner")
		}
		names = append(names, f[2])
	}
	slices.Sort(names)
	if !slices.Equal(names, nodes) {
		return fmt.Errorf("members are %s, etcd pods are on %s", words(names), words(nodes))
	}
	return nil
}
