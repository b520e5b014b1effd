package phases

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/kubewright/kubewright/host"
)

// Etcd is the door to a cluster's etcd. Every call is one look or one try.
type Etcd interface {
	// Members are those of now, learners too, and the id of the cluster that they make up.
	Members(ctx context.Context) (EtcdMembers, error)
	// AddLearner makes room for a member that does not vote, and is started by whoever calls.
	// There can be one at a time.
	AddLearner(ctx context.Context, peerURL string) error
	// Promote lets a learner vote; it is an error while that lags behind.
	Promote(ctx context.Context, id uint64) error
	// Remove takes a member out, for ever: its data are of no more use.
	Remove(ctx context.Context, id uint64) error
	// Serves is nil when the one member at a client URL answers as a voter among a majority.
	Serves(ctx context.Context, clientURL string) error
}

// EtcdMembers is what etcd says of itself.
type EtcdMembers struct {
	Cluster uint64
	Members []EtcdMember
}

// EtcdMember is one of them. One that has never been started has no name.
type EtcdMember struct {
	ID        uint64
	Name      string
	PeerURL   string
	ClientURL string // which it tells at each start; the peer URL is the one with which it was added
	Learner   bool
}

func (m EtcdMember) clientURL() string {
	return cmp.Or(m.ClientURL, strings.TrimSuffix(m.PeerURL, "2380")+"2379")
}

func (m EtcdMember) started() bool { return m.Name != "" }

func (m EtcdMember) String() string {
	name := m.Name
	if name == "" {
		name = "not started"
	}
	return fmt.Sprintf("%x (%s, %s)", m.ID, name, m.PeerURL)
}

// initialCluster is what a new member of that name and peer URL is told of all: NAME=PEERURL.
func (all EtcdMembers) initialCluster(name, peerURL string) []string {
	var out []string
	for _, m := range all.Members {
		switch {
		case m.PeerURL == peerURL:
			m.Name = name
		case !m.started(): // etcd compares the URLs alone
			m.Name = fmt.Sprintf("%x", m.ID)
		}
		out = append(out, m.Name+"="+m.PeerURL)
	}
	slices.Sort(out)
	return out
}

func (all EtcdMembers) byPeerURL(url string) *EtcdMember {
	for _, m := range all.Members {
		if m.PeerURL == url {
			return &m
		}
	}
	return nil
}

// EtcdClient is the etcd of a live cluster.
type EtcdClient struct {
	host      host.Host
	tls       *tls.Config
	endpoints func(ctx context.Context) ([]string, error)

	mu     sync.Mutex
	client *clientv3.Client
}

// NewEtcdClient connects through the host's own view of the network, to whichever of the
// endpoints (URLs) answers. They are asked for when they are needed, and again after an error.
func NewEtcdClient(h host.Host, config *tls.Config, endpoints func(context.Context) ([]string, error)) *EtcdClient {
	return &EtcdClient{host: h, tls: config, endpoints: endpoints}
}

// etcdCall bounds one question: a member without a majority accepts it and never answers.
const etcdCall = 5 * time.Second

func (c *EtcdClient) connect(endpoints []string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints,
		TLS:       c.tls,
		Logger:    zap.NewNop(), // it logs what it tries again by itself
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return c.host.Dial(ctx, "tcp", addr)
		})},
	})
}

// with calls f with a connected client. After an error that is not etcd's own answer it
// begins anew: with the members that there are then, as the one that was asked may be gone.
func (c *EtcdClient) with(ctx context.Context, f func(context.Context, *clientv3.Client) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, etcdCall)
	defer cancel()
	if c.client == nil {
		endpoints, err := c.endpoints(ctx)
		if err != nil {
			return err
		}
		if c.client, err = c.connect(endpoints); err != nil {
			return err
		}
	}
	err := f(ctx, c.client)
	if err != nil {
		answer := rpctypes.EtcdError{}
		keep := errors.As(err, &answer)
		err = fmt.Errorf("etcd at %s: %w", strings.Join(c.client.Endpoints(), ", "), err)
		if !keep {
			c.client.Close()
			c.client = nil
		}
	}
	return err
}

func (c *EtcdClient) Members(ctx context.Context) (all EtcdMembers, err error) {
	err = c.with(ctx, func(ctx context.Context, client *clientv3.Client) error {
		r, err := client.MemberList(ctx)
		if err != nil {
			return err
		}
		all = EtcdMembers{Cluster: r.Header.ClusterId}
		for _, m := range r.Members {
			if len(m.PeerURLs) == 0 {
				return fmt.Errorf("member %x has no peer URL", m.ID)
			}
			e := EtcdMember{ID: m.ID, Name: m.Name, PeerURL: m.PeerURLs[0], Learner: m.IsLearner}
			if len(m.ClientURLs) > 0 {
				e.ClientURL = m.ClientURLs[0]
			}
			all.Members = append(all.Members, e)
		}
		return nil
	})
	return all, err
}

// EtcdStatus is what one member says of itself.
type EtcdStatus struct {
	Leader  uint64 // its id
	Learner bool
	Bytes   int64 // of its database
}

// Status asks the one member at a client URL.
func (c *EtcdClient) Status(ctx context.Context, clientURL string) (s EtcdStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, etcdCall)
	defer cancel()
	client, err := c.connect([]string{clientURL})
	if err != nil {
		return s, err
	}
	r, err := client.Status(ctx, clientURL)
	if err == nil {
		s = EtcdStatus{Leader: r.Leader, Learner: r.IsLearner, Bytes: r.DbSize}
	}
	return s, errors.Join(err, client.Close())
}

func (c *EtcdClient) AddLearner(ctx context.Context, peerURL string) error {
	return c.with(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MemberAddAsLearner(ctx, []string{peerURL})
		return err
	})
}

func (c *EtcdClient) Promote(ctx context.Context, id uint64) error {
	return c.with(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MemberPromote(ctx, id)
		return err
	})
}

// Move has the others look for a member at another peer URL.
func (c *EtcdClient) Move(ctx context.Context, id uint64, peerURL string) error {
	return c.with(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MemberUpdate(ctx, id, []string{peerURL})
		return err
	})
}

func (c *EtcdClient) Remove(ctx context.Context, id uint64) error {
	return c.with(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.MemberRemove(ctx, id)
		return err
	})
}

func (c *EtcdClient) Serves(ctx context.Context, clientURL string) error {
	ctx, cancel := context.WithTimeout(ctx, etcdCall)
	defer cancel()
	client, err := c.connect([]string{clientURL})
	if err != nil {
		return err
	}
	// The list is linearizable: a learner refuses, and one without a majority does not answer.
	_, err = client.MemberList(ctx)
	return errors.Join(err, client.Close())
}
