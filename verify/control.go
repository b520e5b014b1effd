package verify

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/exec"

	"github.com/kubewright/kubewright/verify/probe"
)

var errNoServers = skip("no API server runs as a static pod here, so its way to etcd is not known: the control plane is somebody else's")

// askEtcd asks from the first node whose API server says how.
func (c *Cluster) askEtcd(ctx context.Context) (probe.EtcdState, error) {
	probes, err := c.probes()
	if err != nil {
		return probe.EtcdState{}, err
	}
	for _, p := range probes {
		if p.etcd == nil {
			continue
		}
		host, err := p.host()
		if err != nil {
			return probe.EtcdState{}, err
		}
		return ask[probe.EtcdState](ctx, c, host, "etcd", p.etcd)
	}
	return probe.EtcdState{}, errNoServers
}

// etcdState wants one leader that all members know, no learner, and a snapshot that is whole.
func etcdState(_ context.Context, c *Cluster) (string, error) {
	s, err := c.etcd()
	if err != nil {
		return "", err
	}
	return judgeEtcd(s)
}

func judgeEtcd(s probe.EtcdState) (string, error) {
	var errs []error
	var leader *probe.EtcdMember
	for i, m := range s.Members {
		switch {
		case m.Error != "":
			errs = append(errs, fmt.Errorf("member %s (%s): %s", m.Name, m.ID, m.Error))
		case m.Learner:
			errs = append(errs, fmt.Errorf("member %s is still a learner", m.Name))
		case m.Leader != s.Members[0].Leader:
			errs = append(errs, fmt.Errorf("member %s follows %s, member %s follows %s", m.Name, m.Leader, s.Members[0].Name, s.Members[0].Leader))
		case m.Revision == 0:
			errs = append(errs, fmt.Errorf("member %s is at revision 0: nothing was ever written", m.Name))
		}
		if m.ID == m.Leader {
			leader = &s.Members[i]
		}
	}
	if leader == nil && len(errs) == 0 {
		errs = append(errs, errors.New("no member is the leader"))
	}
	if len(errs) > 0 {
		return "", lines(errs...)
	}
	compaction := "history is compacted up to revision " + fmt.Sprint(s.Compacted)
	if s.Compacted == 0 {
		compaction = "nothing is compacted yet, which the API server does every five minutes"
	}
	return fmt.Sprintf("leader %s of %d members, %s, revision %d, %s; snapshot of %.1f MB read, its %s is right",
		leader.Name, len(s.Members), leader.Version, leader.Revision, compaction, float64(s.Snapshot.Bytes)/1e6, s.Snapshot.Digest[:19]), nil
}

// etcdAlone wants etcd to refuse whoever is not an API server, and to answer who is.
func etcdAlone(ctx context.Context, c *Cluster) (string, error) {
	s, err := c.etcd()
	if err != nil {
		return "", err
	}
	from, err := c.lastProbe()
	if err != nil {
		return "", err
	}
	tries := []struct {
		who  string
		cert []tls.Certificate
	}{{who: "a client without a certificate"}}
	said := []string{"the API server's certificate is accepted"}
	if mine, err := c.clientCertificate(); err != nil {
		said = append(said, "not tried: a certificate of the cluster's CA, as "+err.Error())
	} else {
		tries = append(tries, struct {
			who  string
			cert []tls.Certificate
		}{"a client with a certificate of the cluster's CA", []tls.Certificate{mine}})
	}
	var errs []error
	for _, m := range s.Members {
		for _, address := range addresses(m.URLs) {
			for _, try := range tries {
				refusal, err := c.refusedBy(ctx, from, address, try.cert)
				if err != nil {
					errs = append(errs, fmt.Errorf("etcd at %s, asked by %s from a pod on %s: %w", address, try.who, from.Spec.NodeName, err))
				} else {
					said = append(said, fmt.Sprintf("%s refuses %s (%s)", address, try.who, refusal))
				}
			}
		}
	}
	held, err := c.etcdFiles(ctx)
	said = append(said, held)
	return strings.Join(said, "; "), lines(append(errs, err)...)
}

// addresses are those of URLs that other hosts can reach.
func addresses(urls []string) (all []string) {
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback() {
			continue
		}
		all = append(all, u.Host)
	}
	return all
}

// clientCertificate is the one of the kubeconfig.
func (c *Cluster) clientCertificate() (tls.Certificate, error) {
	if len(c.config.CertData) == 0 || len(c.config.KeyData) == 0 {
		return tls.Certificate{}, errors.New("the kubeconfig holds none")
	}
	return tls.X509KeyPair(c.config.CertData, c.config.KeyData)
}

// refusedBy wants a server to refuse a TLS client, and says how it did. The key stays here: a pod only carries the bytes.
func (c *Cluster) refusedBy(ctx context.Context, from *corev1.Pod, address string, certificates []tls.Certificate) (how string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	carried, ended := c.dial(ctx, from, address)
	defer carried.Close()
	return refusal(ctx, carried, ended, address, certificates)
}

// refusal is what a server says to a TLS client, or what the one who carries says of the way to it. That nobody carried
// anything, or nothing came, is no refusal.
func refusal(ctx context.Context, carried net.Conn, ended func() (said string, err error), address string, certificates []tls.Certificate) (how string, err error) {
	// Whoever answers is the one that must refuse.
	config := &tls.Config{InsecureSkipVerify: true}
	if len(certificates) > 0 { // also to one who says that it wants another's
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificates[0], nil }
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/health", nil)
	if err != nil {
		return "", err
	}
	conn := tls.Client(carried, config)
	if err = conn.HandshakeContext(ctx); err == nil {
		// In TLS 1.3 a client is refused only after its own side is done.
		if err = request.Write(conn); err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
	}
	var op *net.OpError
	switch {
	case err == nil:
		return "", errors.New("it was answered, and ought to be refused: whoever can reach this port reads every Secret")
	case errors.As(err, &op) && op.Op == "remote error": // the server's own words
		return op.Err.Error(), nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("no answer: %w", ctx.Err())
	}
	said, failed := ended()
	if failed != nil {
		return "", failed
	}
	return cmp.Or(said, err.Error()), nil
}

// dial connects from a pod's view of the network. Ended waits for the end, and tells what the pod said of the way, or
// what kept the pod from carrying.
func (c *Cluster) dial(ctx context.Context, from *corev1.Pod, address string) (conn net.Conn, ended func() (said string, err error)) {
	near, far := net.Pipe()
	var out buffer
	failed := make(chan error, 1)
	go func() {
		err := c.stream(ctx, from, from.Spec.Containers[0].Name, far, far, &out, append(probe.Argv("connect", nil), address)...)
		far.Close()
		var code exec.ExitError
		if errors.As(err, &code) || errors.Is(err, io.ErrClosedPipe) { // it ran, and said why it ended; or we did not wait for it
			err = nil
		}
		failed <- err
	}()
	return near, func() (string, error) {
		near.Close()
		err := <-failed
		return strings.TrimPrefix(strings.TrimSpace(out.String()), "error: "), err
	}
}

// etcdFiles wants workers to hold nothing that is etcd's, on hosts that can be reached.
func (c *Cluster) etcdFiles(ctx context.Context) (string, error) {
	probes, err := c.probes()
	if err != nil {
		return "", err
	}
	var errs []error
	workers, looked := 0, 0
	for _, p := range probes {
		if p.etcd != nil {
			continue
		}
		workers++
		run := c.hosts[p.node.name]
		if run == nil {
			continue
		}
		looked++
		out, err := run(ctx, "find", "/etc/kubernetes/pki", "-path", "/etc/kubernetes/pki/etcd/*", "-o", "-name", "apiserver-etcd-client.*")
		if out = strings.TrimSpace(out); out != "" {
			errs = append(errs, fmt.Errorf("worker %s holds %s, with which it could talk to etcd", p.node.name, strings.Join(strings.Fields(out), " ")))
		} else if err != nil && !strings.Contains(err.Error(), "No such file") {
			errs = append(errs, fmt.Errorf("worker %s: %w", p.node.name, err))
		}
	}
	if looked < workers {
		return fmt.Sprintf("not looked for: etcd's files on %d of %d workers, which needs -f", workers-looked, workers), lines(errs...)
	}
	return fmt.Sprintf("none of %d workers holds etcd's files", workers), lines(errs...)
}
