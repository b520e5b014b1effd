package phases

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/kubewright/kubewright/host"
)

// anyOf reaches the API server of any control plane that has one, the leader's first.
type anyOf struct {
	host.Host
	u *Up
}

func (a anyOf) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := a.u.leader.ownAPI(a.u.Cluster).Dial(ctx, network, addr)
	for _, m := range a.u.answering() {
		if err == nil {
			break
		}
		if m != a.u.leader && a.u.members[m] {
			var e error
			if conn, e = m.ownAPI(a.u.Cluster).Dial(ctx, network, addr); e == nil {
				err = nil
			}
		}
	}
	return conn, err
}

// ready waits until the control planes of a running cluster are well: all voters of etcd,
// and every API server that was there before. With a name it asks instead whether etcd would
// keep its majority while that one restarts.
func (u *Up) ready(ctx context.Context, restarts string) error {
	limit := u.Cluster.Spec.Timeouts.ControlPlaneComponentHealthCheck.Duration
	if restarts != "" {
		limit = 10 * time.Second
		u.settle(ctx, restarts)
	}
	return until(ctx, limit, "the control planes", func(ctx context.Context) error {
		if err := u.voters(ctx, restarts); err != nil {
			return err
		}
		for m := range u.members {
			client, err := u.clientOn(m)
			if err == nil && restarts == "" {
				err = client.Ready(ctx, "/readyz")
			}
			if err != nil {
				return fmt.Errorf("%s: %w", m.Node.Name, err)
			}
		}
		return nil
	})
}

// voters is one look at etcd.
func (u *Up) voters(ctx context.Context, restarts string) error {
	if u.Cluster.Spec.Etcd.External != nil {
		return nil
	}
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
		if e.Name != restarts && !serving[e.ID] {
			down = append(down, e.Name)
		}
	}
	switch {
	case len(down) == 0 && (restarts == "" || voters < 3), restarts != "" && voters-len(down)-1 >= voters/2+1:
		return nil
	case restarts == "":
		return fmt.Errorf("etcd on %s does not answer", strings.Join(down, ", "))
	}
	return fmt.Errorf("of %d members of etcd %s does not answer: if %s were restarted now, there would be no majority; bring that up first, or remove it", voters, strings.Join(down, ", "), restarts)
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
