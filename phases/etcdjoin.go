package phases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// abandoned is after how long a learner that was announced and never started, and at whose
// address nothing listens, is taken for one whose host is gone. Between the two a join needs
// the start of a pod, and without a bundle the pull of its image.
const abandoned = 3 * time.Minute

// checkEtcd refuses a host that can never become a member, before anything of it is changed.
func checkEtcd(ctx context.Context, t *Target) error {
	_, locked := t.API.(NoAPI) // an external CA has not signed yet
	if t.Cluster.Spec.Etcd.External != nil || locked {
		return nil
	}
	if err := t.judge(etcdPorts(t.Cluster, t.Facts)); err != nil {
		return err
	}
	return untilFinal(ctx, t.Cluster.Spec.Timeouts.KubernetesAPICall.Duration, "the cluster's etcd", func(ctx context.Context) error {
		v, err := t.viewEtcd(ctx, manifests.PeerURL(t.Node.IP()))
		if err != nil {
			return err
		}
		if _, _, err = nextEtcdStep(v); err != nil {
			return finalError{err}
		}
		return nil
	})
}

// etcdJoin brings this host into etcd's list of members and writes the manifest of its
// member. Whatever an earlier run left, it goes on from there.
func etcdJoin(ctx context.Context, t *Target) error {
	if t.Cluster.Spec.Etcd.External != nil {
		return nil
	}
	peerURL := manifests.PeerURL(t.Node.IP())
	var absent uint64 // the other learner that does not answer, and since when
	var since time.Time
	var last etcdView
	err := untilFinal(ctx, t.Cluster.Spec.Timeouts.ControlPlaneComponentHealthCheck.Duration, "a place in etcd", func(ctx context.Context) error {
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			v, err := t.viewEtcd(ctx, peerURL)
			if err != nil {
				return err
			}
			step, m, err := nextEtcdStep(v)
			if err != nil {
				return finalError{err}
			}
			if step == etcdWait && !m.started() && !t.listens(ctx, m.PeerURL) {
				if absent != m.ID {
					absent, since = m.ID, time.Now()
				}
				v.Abandoned = time.Since(since) > abandoned
				if step, m, err = nextEtcdStep(v); err != nil {
					return finalError{err}
				}
			}
			switch step {
			case etcdStart, etcdVotes:
				last = v
				return nil
			case etcdWait:
				return fmt.Errorf("member %s is not promoted yet, and etcd takes one at a time: see how far that host is; if it is gone, remove its member with `etcdctl member remove %x`", m, m.ID)
			case etcdAdd:
				if err = t.note(ctx, Step{Kind: aMember, Name: "add learner " + peerURL}); err == nil {
					err = t.Etcd.AddLearner(ctx, peerURL)
				}
			case etcdRemove:
				if m.PeerURL == peerURL && m.started() && m.Name != t.Node.Name {
					return finalError{fmt.Errorf("etcd has a member %s at the address of this host, %s: if this is that host, give it its name of before with --node-name; else name this host's own address with --apiserver-advertise-address", m, t.Node.Address)}
				}
				t.notice("removing etcd's member %s, which can not come back", m)
				if err = t.note(ctx, Step{Kind: aMember, Name: "remove " + m.String()}); err == nil {
					err = t.Etcd.Remove(ctx, m.ID)
				}
			case etcdMoveAside:
				err = t.moveEtcdAside(ctx)
			}
			if err != nil {
				return err
			}
			t.changed(1)
		}
	})
	if err != nil {
		return err
	}
	members := last.initialCluster(t.Node.Name, peerURL)
	if last.Data != (etcdData{}) { // etcd has read them, and never will again
		kept, err := t.etcdMembers(ctx)
		if err != nil {
			return err
		}
		if infos, err := t.Host.Stat(ctx, manifests.Path(manifests.Etcd)); err != nil || len(infos) > 0 {
			members = kept
		}
	}
	return t.writeEtcd(ctx, members)
}

// viewEtcd looks at etcd, from inside and on this host.
func (t *Target) viewEtcd(ctx context.Context, peerURL string) (v etcdView, err error) {
	v.PeerURL = peerURL
	if v.EtcdMembers, err = t.Etcd.Members(ctx); err != nil {
		return v, err
	}
	if v.Data, err = t.ownEtcdData(ctx); err != nil {
		return v, err
	}
	if own := v.byPeerURL(peerURL); own != nil && v.Data.Member != own.ID {
		v.Listens = t.listens(ctx, peerURL)
	}
	return v, nil
}

// ownEtcdData tells whose data this host has.
func (t *Target) ownEtcdData(ctx context.Context) (etcdData, error) {
	dir, err := t.etcdData(ctx)
	if err != nil {
		return etcdData{}, err
	}
	names, err := t.Host.List(ctx, dir+"/member/wal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return etcdData{}, err
	}
	for _, name := range slices.Backward(names) {
		if !strings.HasSuffix(name, ".wal") {
			continue
		}
		path := dir + "/member/wal/" + name
		out, err := t.Host.Run(ctx, host.Query("head", "-c", fmt.Sprint(walHead), path))
		if err != nil {
			return etcdData{}, err
		}
		d, err := parseWAL(out.Stdout)
		if err != nil {
			return d, finalError{fmt.Errorf("%s: %w: move the folder away, if nobody needs it", path, err)}
		}
		return d, nil
	}
	return etcdData{}, nil // without a log, etcd itself takes the folder for empty
}

func (t *Target) listens(ctx context.Context, peerURL string) bool {
	u, err := url.Parse(peerURL)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := t.Host.Dial(ctx, "tcp", u.Host)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// moveEtcdAside stops etcd on this host and renames its data: they are never deleted.
func (t *Target) moveEtcdAside(ctx context.Context) error {
	dir, err := t.etcdData(ctx)
	if err != nil {
		return err
	}
	if _, err := t.write(ctx, host.File{Path: manifests.Path(manifests.Etcd), Absent: true}); err != nil {
		return err
	}
	_, planning := t.Host.(*host.Recorder) // then it goes on
	err = until(ctx, t.Cluster.Spec.Timeouts.KubeletHealthCheck.Duration, "the end of etcd on this host", func(ctx context.Context) error {
		if planning {
			return nil
		}
		out, err := t.Host.Run(ctx, host.Query("crictl", "ps", "--quiet", "--name", "^"+manifests.Etcd+"$"))
		if id := strings.TrimSpace(string(out.Stdout)); err == nil && id != "" {
			err = fmt.Errorf("container %s still runs", id)
		}
		return err
	})
	if err != nil {
		return err
	}
	aside := dir + "/member-" + time.Now().UTC().Format("20060102T150405Z")
	t.notice("the data of etcd on this host are those of a member that was removed; they are now in %s", aside)
	return t.do(ctx, "mv", "--no-target-directory", "--", dir+"/member", aside)
}

// etcdPromote waits until this host's member is in sync, makes it a voter, and waits until
// it answers as one.
func etcdPromote(ctx context.Context, t *Target) error {
	if t.Cluster.Spec.Etcd.External != nil {
		return nil
	}
	peerURL := manifests.PeerURL(t.Node.IP())
	var removed error
	noted := false
	err := t.waitPod(ctx, manifests.Etcd, func(ctx context.Context) error {
		all, err := t.Etcd.Members(ctx)
		if err != nil {
			return err
		}
		own := all.byPeerURL(peerURL)
		if own == nil {
			removed = fmt.Errorf("somebody has removed this host's member from etcd: run the same command again, and it joins anew")
			return nil
		}
		if own.Learner {
			if !own.started() { // etcd would refuse, and log each try
				return fmt.Errorf("member %s has not been heard of", *own)
			}
			if !noted {
				if err := t.note(ctx, Step{Kind: aMember, Name: "promote " + own.String()}); err != nil {
					return err
				}
				noted = true
			}
			if err := t.Etcd.Promote(ctx, own.ID); err != nil {
				return fmt.Errorf("promote member %s: %w", *own, err)
			}
			t.changed(1)
		}
		return t.Etcd.Serves(ctx, "https://"+loopback(t, 2379))
	})
	return errors.Join(err, removed)
}

// etcdEndpoints finds etcd as kubeadm does, by what its pods say of themselves. The kubelet
// shows a static pod in the API only seconds after it runs, but an API server has an etcd
// beside it: so their addresses will do as well.
func etcdEndpoints(api API) func(context.Context) ([]string, error) {
	return func(ctx context.Context) ([]string, error) {
		var endpoints []string
		add := func(url string) {
			if !slices.Contains(endpoints, url) {
				endpoints = append(endpoints, url)
			}
		}
		pods, err := api.List(ctx, ref("v1", "Pod", "kube-system", ""), "component=etcd,tier=control-plane")
		if err != nil {
			return nil, err
		}
		for _, p := range pods {
			if url := p.GetAnnotations()["kubeadm.kubernetes.io/etcd.advertise-client-urls"]; url != "" {
				add(url)
			}
		}
		slice, err := api.Get(ctx, ref("discovery.k8s.io/v1", "EndpointSlice", "default", "kubernetes"))
		if err != nil && !isNotFound(err) {
			return nil, err
		}
		for _, address := range addressesOf(slice) {
			add("https://" + net.JoinHostPort(address, "2379"))
		}
		if len(endpoints) == 0 {
			return nil, errors.New("no etcd was found in the cluster: neither its pods in kube-system nor API servers in EndpointSlice default/kubernetes")
		}
		return endpoints, nil
	}
}

// addressesOf an EndpointSlice.
func addressesOf(slice addons.Object) (out []string) {
	if slice == nil {
		return nil
	}
	list, _, _ := unstructured.NestedSlice(slice.Object, "endpoints")
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			addresses, _, _ := unstructured.NestedStringSlice(m, "addresses")
			out = append(out, addresses...)
		}
	}
	return out
}
