package phases

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// anyOf reaches the API server of whichever control plane answers, in this order.
type anyOf struct {
	host.Host
	doors []ownAPI
}

func (a anyOf) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	for _, d := range a.doors {
		c, e := d.Dial(ctx, network, addr)
		if e == nil {
			return c, nil
		}
		err = cmp.Or(err, e)
	}
	return nil, err
}

// etcd is the cluster's, asked from the leader: at the addresses of the members that are known, as an
// API server that could tell of them may be what is to be mended.
func (u *Up) etcd() (*EtcdClient, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if have := u.etcds[u.leader]; have != nil {
		return have, nil
	}
	tls, err := u.secrets[u.leader].EtcdClient()
	if err != nil {
		return nil, err
	}
	var endpoints []string
	for _, m := range u.Machines {
		if u.members[m] {
			endpoints = append(endpoints, "https://"+net.JoinHostPort(m.Node.Address, "2379"))
		}
	}
	if u.etcds == nil {
		u.etcds = map[*Machine]*EtcdClient{}
	}
	u.etcds[u.leader] = NewEtcdClient(u.leader.Host, tls, func(ctx context.Context) ([]string, error) {
		if len(endpoints) > 0 {
			return endpoints, nil
		}
		return etcdEndpoints(u.api)(ctx)
	})
	return u.etcds[u.leader], nil
}

// hasMoved tells of etcd's only member whether it is at another peer URL than the one with which it was added: its host has
// got another address, which its manifest has already (a container's is written at boot), and one that joins would look for it at the old one.
func (u *Up) hasMoved(ctx context.Context) (url string, moved bool) {
	m := u.leader
	if u.alone.ID == 0 || u.alone.ID != m.data.Member || u.PrepareOnly || !u.chosen(m) || slices.Contains(u.Skip, "etcd") {
		return "", false
	}
	if url = manifests.PeerURL(m.Node.IP()); url == u.alone.PeerURL {
		return "", false
	}
	b, err := m.Host.ReadFile(ctx, manifests.Path(manifests.Etcd))
	return url, err == nil && bytes.Contains(b, []byte("--initial-advertise-peer-urls="+url+"\n"))
}

func (u *Up) moveAlone(ctx context.Context, url string) error {
	c, err := u.etcd()
	if err != nil {
		return err
	}
	if err := c.Move(ctx, u.alone.ID, url); err != nil {
		return fmt.Errorf("etcd's member %s is at %s, and does not note so: %w", u.alone, url, err)
	}
	u.changes.Add(1)
	return nil
}

// ready is asked with a name whether that control plane may be restarted: whether etcd would keep its
// majority, and another API server would answer. Without one it waits until that is well again, and all
// that were well before.
func (u *Up) ready(ctx context.Context, restarts string) error {
	if restarts != "" {
		u.settle(ctx, restarts)
		return until(ctx, 10*time.Second, "the control planes", func(ctx context.Context) error { return u.mayRestart(ctx, restarts) })
	}
	limit := u.Cluster.Spec.Timeouts.ControlPlaneComponentHealthCheck.Duration
	return until(ctx, limit, "the control planes", func(ctx context.Context) error {
		well, err := u.well(ctx)
		if err != nil {
			return err
		}
		for name := range u.before {
			if !well[name] {
				return fmt.Errorf("%s is not well again: its API server is not ready, or its etcd does not answer", name)
			}
		}
		return nil
	})
}

// well tells of each control plane whether its API server is ready and its member of etcd votes.
func (u *Up) well(ctx context.Context) (map[string]bool, error) {
	var all EtcdMembers
	var serving map[uint64]bool
	external := u.Cluster.Spec.Etcd.External != nil
	if !external {
		var err error
		if all, serving, err = u.etcdNow(ctx); err != nil {
			return nil, err
		}
	}
	well := map[string]bool{}
	for m := range u.members {
		client, err := u.clientOn(m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Node.Name, err)
		}
		own := u.memberOf(all, m)
		well[m.Node.Name] = client.Ready(ctx, "/readyz") == nil && (external || own != nil && serving[own.ID])
	}
	return well, nil
}

func (u *Up) mayRestart(ctx context.Context, name string) error {
	well, err := u.well(ctx)
	if err != nil {
		return err
	}
	others := 0
	for other, ok := range well {
		if other != name && ok {
			others++
		}
	}
	if well[name] && others == 0 && len(well) > 1 {
		return fmt.Errorf("the API server of %s is the only one that is ready: bring up another control plane first, or remove those that are down", name)
	}
	if u.Cluster.Spec.Etcd.External == nil {
		if err := u.majorityWithout(ctx, name); err != nil {
			return err
		}
	}
	u.before = map[string]bool{name: true}
	for other, ok := range well {
		if ok {
			u.before[other] = true
		}
	}
	return nil
}

// majorityWithout refuses to restart a member of etcd that it takes for a majority. A single one, or one
// of two, always is.
func (u *Up) majorityWithout(ctx context.Context, name string) error {
	all, serving, err := u.etcdNow(ctx)
	if err != nil {
		return err
	}
	var down []string
	voters := 0
	for _, e := range all.Members {
		if e.Learner {
			continue
		}
		voters++
		if e.Name != name && !serving[e.ID] {
			down = append(down, e.Name)
		}
	}
	if !keepsMajority(voters, len(down)) {
		return fmt.Errorf("of %d members of etcd %s does not answer: if %s were restarted now, there would be no majority; bring that up first, or remove it", voters, strings.Join(down, ", "), name)
	}
	return nil
}

// keepsMajority tells whether one more may go away for a moment.
func keepsMajority(voters, down int) bool {
	return down == 0 && voters < 3 || voters-down-1 >= voters/2+1
}

// get is what the server has at a path that is no object's.
func (c *Client) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s says %s: %s", c.server, path, resp.Status, failing(string(body)))
	}
	return string(body), err
}
