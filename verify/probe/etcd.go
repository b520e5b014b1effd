package probe

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Etcd asks etcd as the API server does, with its certificate.
type Etcd struct {
	Endpoints     []string
	CA, Cert, Key string // paths
}

// Local says whether etcd is a member on the same node.
func (e *Etcd) Local() bool {
	if e == nil || len(e.Endpoints) != 1 {
		return false
	}
	u, err := url.Parse(e.Endpoints[0])
	return err == nil && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback())
}

// EtcdState is what etcd says of itself.
type EtcdState struct {
	Members   []EtcdMember
	Compacted int64 // the revision up to which history is gone; 0: all is there
	Snapshot  Snapshot
}

// EtcdMember is a member, and what it says itself.
type EtcdMember struct {
	Name, ID, Leader string
	URLs             []string // for clients
	Learner          bool
	Version          string
	Revision         int64
	Bytes            int64  // of its database
	Error            string `json:",omitempty"`
}

// Snapshot is one that was read to its end and not kept.
type Snapshot struct {
	Bytes  int64
	Digest string // the sha256 at its end, which is right
}

// SnapshotLimit is for a snapshot to be read to its end: a database may have 8 GB.
const SnapshotLimit = 2 * time.Minute

func etcd(ctx context.Context, q Etcd) (s EtcdState, err error) {
	pair, err := tls.LoadX509KeyPair(q.Cert, q.Key)
	if err != nil {
		return s, err
	}
	pem, err := os.ReadFile(q.CA)
	if err != nil {
		return s, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return s, fmt.Errorf("%s holds no certificate", q.CA)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: q.Endpoints, TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}, Logger: zap.NewNop()})
	if err != nil {
		return s, err
	}
	defer c.Close()
	list, err := members(ctx, c)
	if err != nil {
		return s, fmt.Errorf("list members at %s: %w", strings.Join(q.Endpoints, " "), err)
	}
	for _, m := range list.Members {
		member := EtcdMember{Name: m.Name, ID: fmt.Sprintf("%x", m.ID), Learner: m.IsLearner, URLs: m.ClientURLs, Error: "it has never been started"}
		if len(m.ClientURLs) > 0 {
			member.ask(ctx, c, m.ClientURLs[0])
		}
		s.Members = append(s.Members, member)
	}
	if s.Compacted, err = compacted(ctx, c); err != nil {
		return s, fmt.Errorf("ask for the first revision: %w", err)
	}
	if s.Snapshot, err = snapshot(ctx, c); err != nil {
		return s, fmt.Errorf("snapshot: %w", err)
	}
	return s, nil
}

func members(ctx context.Context, c *clientv3.Client) (*clientv3.MemberListResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return c.MemberList(ctx)
}

func (m *EtcdMember) ask(ctx context.Context, c *clientv3.Client, url string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := c.Status(ctx, url)
	if err != nil {
		m.Error = err.Error()
		return
	}
	m.Error, m.Version, m.Leader, m.Revision, m.Bytes = "", r.Version, fmt.Sprintf("%x", r.Leader), r.Header.Revision, r.DbSize
	if r.Leader == 0 {
		m.Error = "it knows no leader"
	}
}

// compacted asks for the first revision of all: who watches what is gone is told where to begin.
func compacted(ctx context.Context, c *clientv3.Client) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	const none = "kubewright-verify-no-such-key"
	if _, err := c.Get(ctx, none, clientv3.WithRev(1)); !errors.Is(err, rpctypes.ErrCompacted) {
		return 0, err
	}
	for r := range c.Watch(ctx, none, clientv3.WithRev(1)) {
		if r.CompactRevision > 0 {
			return r.CompactRevision, nil
		}
		if err := r.Err(); err != nil {
			return 0, err
		}
	}
	return 0, ctx.Err()
}

// snapshot reads all of it; etcd ends it with a digest of what came before.
func snapshot(ctx context.Context, c *clientv3.Client) (Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, SnapshotLimit)
	defer cancel()
	r, err := c.SnapshotWithVersion(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	defer r.Snapshot.Close()
	t := tail{hash: sha256.New()}
	n, err := io.Copy(&t, r.Snapshot)
	if err != nil {
		return Snapshot{}, err
	}
	got := hex.EncodeToString(t.hash.Sum(nil))
	if want := hex.EncodeToString(t.last); got != want {
		return Snapshot{}, errors.New("its digest is sha256:" + got + ", and it says sha256:" + want)
	}
	return Snapshot{Bytes: n - sha256.Size, Digest: "sha256:" + got}, nil
}

// tail hashes all but the last bytes, as many as a digest has.
type tail struct {
	hash hash.Hash
	last []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p...)
	if more := len(t.last) - sha256.Size; more > 0 {
		t.hash.Write(t.last[:more])
		t.last = append(t.last[:0], t.last[more:]...)
	}
	return len(p), nil
}
