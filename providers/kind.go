package providers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/kind/pkg/cluster"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/host/container"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/reach"
)

// Kind makes machines of containers, with kind's own library: its commands find and remove them.
type Kind struct {
	Engine container.Engine
	Say    func(format string, args ...any) // to the user, of what takes long; nil: nothing
	// Impatient: machines that boot are not waited for; what still works in them can be asked.
	Impatient bool
	// Server is where the API server is from here, HOST:PORT, once Machines has looked; empty: the engine does not tell.
	Server string
	lib    *cluster.Provider
	maker  *cluster.Provider // ends when the containers are made
	// unsigned is what Machines is to write into containers in which there is nothing yet; wished what Remember is to write, into others.
	unsigned, wished *marked
	// settling is how long an engine may take to list a container that it has begun with.
	settling time.Duration
	// patience is how long an engine may take to remove containers until Say tells of it, again and again; after six times it is given up.
	patience time.Duration
	editing  sync.Mutex // a kubeconfig: kind's library does not wait for others
}

// What kind labels its containers with.
const (
	clusterLabel = "io.x-k8s.kind.cluster"
	roleLabel    = "io.x-k8s.kind.role"
)

// mark is a file in the first control plane of each cluster that kubewright made: kind adds no labels for us.
const mark = "/kind/kubewright.json"

// marked is what it says.
type marked struct {
	Expires time.Time `json:"expires,omitzero"`
	Cluster string    `json:"cluster"` // the document
}

// NewKind finds the engine that runs containers here.
func NewKind(ctx context.Context) (*Kind, error) {
	e, err := container.Detect(ctx)
	if err != nil {
		return nil, err
	}
	of := map[container.Engine]cluster.ProviderOption{"docker": cluster.ProviderWithDocker(), "podman": cluster.ProviderWithPodman(), "nerdctl": cluster.ProviderWithNerdctl("")}
	return &Kind{Engine: e, Say: func(string, ...any) {}, lib: cluster.NewProvider(of[e]), maker: cluster.NewProvider(of[e], cluster.ProviderWithLogger(leaver{})), settling: 5 * time.Second, patience: 10 * time.Second}, nil
}

func (k *Kind) containers(ctx context.Context, name string) ([]container.Container, error) {
	return k.Engine.Containers(ctx, clusterLabel+"="+name)
}

// Create makes the containers, if there are none of that name, which end at a time if it is not zero. It returns
// once they run; kind's library has ended when finish returns, with what it says, whatever has become of ctx. What it made it
// made even if it fails: see Delete. Containers of before, and those that somebody else makes meanwhile, are never touched.
func (k *Kind) Create(ctx context.Context, c *config.Cluster, expires time.Time) (made bool, finish func() error, err error) {
	finish = func() error { return nil }
	w := wish(c)
	var images []string
	for _, n := range w.Nodes {
		if !slices.Contains(images, n.Image) {
			images = append(images, n.Image)
		}
	}
	var have []container.Container
	here := make([]bool, len(images))
	var g errgroup.Group
	g.Go(func() (err error) {
		have, err = k.containers(ctx, c.Metadata.Name)
		return err
	})
	for i, image := range images {
		g.Go(func() error {
			here[i] = k.Engine.Has(ctx, image)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return false, finish, err
	}
	if len(have) > 0 {
		return false, finish, k.keep(ctx, c, have, expires)
	}
	for i, image := range images {
		if here[i] {
			continue
		}
		if err := k.pull(ctx, image); err != nil {
			return false, finish, err
		}
	}
	if err := ctx.Err(); err != nil {
		return false, finish, context.Cause(ctx)
	}
	patches := len(w.ContainerdConfigPatches)+len(w.ContainerdConfigPatchesJSON6902) > 0
	lib := k.maker
	if patches { // which it makes when the containers run
		lib = k.lib
	}
	ended, failed := make(chan struct{}), error(nil)
	go func() {
		defer close(ended)
		failed = within(context.WithoutCancel(ctx), 5*time.Minute, "make the containers", func() error {
			return lib.Create(c.Metadata.Name, cluster.CreateWithV1Alpha4Config(w), cluster.CreateWithStopBeforeSettingUpKubernetes(true), cluster.CreateWithRetain(true))
		})
	}()
	// kind's library hears of no context: what it has begun is waited for, so that it makes nothing behind our back.
	finish = sync.OnceValue(func() error {
		stop := context.AfterFunc(ctx, func() { k.Say("waiting until kind has ended what it began") })
		defer stop()
		<-ended
		if failed != nil && !taken(failed) {
			k.settle(context.WithoutCancel(ctx), c)
		}
		return failed
	})
	// kind waits until they have booted, as the phases do on their own; but with patches it restarts the runtime.
	if patches || !k.run(ctx, c, ended) {
		err := finish()
		if ctx.Err() != nil { // Ctrl-C ends kind's commands, too, and they say so
			err = context.Cause(ctx)
		}
		if err != nil {
			return !taken(failed), finish, err
		}
	}
	document, err := c.Print()
	k.unsigned = &marked{Expires: expires, Cluster: string(document)}
	return true, finish, err
}

// Remember has a cluster that was there keep the document, and the end, that Create was given, once they were accepted.
func (k *Kind) Remember(ctx context.Context, c *config.Cluster) error {
	if k.wished == nil {
		return nil
	}
	return k.sign(ctx, c, *k.wished)
}

// run tells when all containers run; not if kind's library ends before.
func (k *Kind) run(ctx context.Context, c *config.Cluster, ended <-chan struct{}) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-ended:
			return false
		case <-time.After(200 * time.Millisecond): // engines tell of containers in ways of their own
		}
		select {
		case <-ended: // and what runs is perhaps somebody else's
			return false
		default:
		}
		if n, err := k.Engine.Running(ctx, clusterLabel+"="+c.Metadata.Name); err == nil && n == len(c.Spec.Hosts) {
			return true
		}
	}
}

// settle waits until what kind has begun is seen: it returns with the first error, while others of its
// commands run, and a container that came later would stay.
func (k *Kind) settle(ctx context.Context, c *config.Cluster) {
	ctx, cancel := context.WithTimeout(ctx, k.settling)
	defer cancel()
	for ctx.Err() == nil {
		have, err := k.containers(ctx, c.Metadata.Name)
		if err == nil && len(have) >= len(c.Spec.Hosts) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// pull brings an image that is not here: kind would try four times, and hear of no Ctrl-C.
func (k *Kind) pull(ctx context.Context, image string) error {
	k.Say("pulling the image %s", image)
	if _, err := k.Engine.Do(ctx, "pull", "--quiet", image); err != nil {
		return fmt.Errorf("the image %s is not here, and could not be pulled: %w: build one with `kubewright build node-image`, load it with `%s load`, or name another with --image", image, err, k.Engine)
	}
	return nil
}

// Document is that of a cluster that is there, which it was made of.
func (k *Kind) Document(ctx context.Context, name string) (*config.Cluster, error) {
	have, err := k.containers(ctx, name)
	if err != nil {
		return nil, err
	}
	if have == nil {
		return nil, fmt.Errorf("there is no cluster %s of containers here: `kind get clusters` lists them, and `kubewright up --provider kind --name %s` makes it", name, name)
	}
	for _, c := range have {
		if c.Labels[roleLabel] != "control-plane" {
			continue
		}
		if m, err := k.marked(ctx, c.Name); err == nil {
			return config.Parse([]byte(m.Cluster))
		}
	}
	return nil, fmt.Errorf("the cluster %s was made by kind, not by kubewright, which knows nothing of it: `kubewright verify --context kind-%s` needs a kubeconfig alone", name, name)
}

// Remembered is the document of a cluster that is there; nil where there is none, or none that says what it was made of.
func (k *Kind) Remembered(ctx context.Context, name string) (*config.Cluster, error) {
	have, err := k.Engine.Names(ctx, clusterLabel+"="+name)
	if err != nil || len(have) == 0 {
		return nil, err
	}
	m, err := k.marked(ctx, name+"-control-plane")
	if err != nil && container.Absent(err) {
		return nil, ctx.Err()
	}
	if err != nil { // to go on without it would be to make another cluster of it
		return nil, fmt.Errorf("the cluster %s is there, and what it was made of can't be read: %w: run this again, or give its document with -f", name, err)
	}
	c, err := config.Parse([]byte(m.Cluster))
	if err != nil {
		err = fmt.Errorf("the document that the cluster %s remembers is not understood: %w: give one with -f", name, err)
	}
	return c, err
}

// Machines are the containers of a cluster, once they have booted. Those that Create has made have their mark then, before anything is
// changed in them: a cluster without it never expires, and is taken for kind's as soon as there is anything of Kubernetes.
func (k *Kind) Machines(ctx context.Context, c *config.Cluster) ([]*phases.Machine, error) {
	var wanted []string
	for _, n := range c.Spec.Hosts {
		wanted = append(wanted, n.Name)
	}
	have, err := k.Engine.Inspect(ctx, wanted...)
	if err != nil { // one of them is not there, say
		have, err = k.containers(ctx, c.Metadata.Name)
	}
	if err != nil {
		return nil, err
	}
	have = slices.DeleteFunc(have, func(h container.Container) bool { return h.Labels[clusterLabel] != c.Metadata.Name })
	for _, h := range have {
		if h.Name == first(c).Name {
			// Docker Desktop's machine publishes it elsewhere than here, as the label says.
			k.Server = cmp.Or(h.Labels["desktop.docker.io/ports/6443/tcp"], h.Published["6443/tcp"])
		}
	}
	machines := make([]*phases.Machine, len(c.Spec.Hosts))
	g, ctx := errgroup.WithContext(ctx)
	if m := k.unsigned; m != nil { // not before the engine was asked: while it copies into a container, it tells nothing of it
		k.unsigned = nil
		g.Go(func() error { return k.sign(ctx, c, *m) })
	}
	for i, n := range c.Spec.Hosts {
		m := &phases.Machine{Node: n}
		machines[i] = m
		g.Go(func() error {
			j := slices.IndexFunc(have, func(h container.Container) bool { return h.Name == n.Name })
			if j < 0 {
				m.Err = fmt.Errorf("there is no such container: make the cluster with `kubewright up --provider kind --name %s`", c.Metadata.Name)
			} else {
				m.Host, m.Err = k.open(ctx, have[j])
			}
			if m.Err != nil {
				m.Err = &host.UnreachableError{Err: fmt.Errorf("%s: %w", n.Name, m.Err)}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		for _, m := range machines {
			if h, ok := m.Host.(io.Closer); ok {
				h.Close()
			}
		}
		return nil, err
	}
	return machines, nil
}

func (k *Kind) open(ctx context.Context, c container.Container) (host.Host, error) {
	if !c.Running || len(c.Addresses) == 0 {
		return nil, fmt.Errorf("its container does not run: start it with `%s start %s`", k.Engine, c.Name)
	}
	h := host.NewRemote(container.New(k.Engine, c.Name, c.Addresses, container.Relayed(reach.NewRelay)))
	var g errgroup.Group
	if !k.Impatient {
		g.Go(func() error { return k.Engine.Booted(ctx, c.Name, h) })
	}
	g.Go(func() error { h.Stat(ctx, "/"); return nil }) // shells start while it boots
	g.Go(func() error { h.Digest(ctx, "/kind/version"); return nil })
	if err := g.Wait(); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Consoles writes into a folder here what the engine knows of the containers of a cluster, and what they have printed.
func (k *Kind) Consoles(ctx context.Context, name, dir string) error {
	have, err := k.containers(ctx, name)
	if err != nil {
		return err
	}
	var g errgroup.Group
	for _, c := range have {
		g.Go(func() error {
			to := filepath.Join(dir, c.Name)
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
			console, err := k.Engine.Console(ctx, c.Name, 0)
			// Not its environment: a proxy's password may stand there.
			described, descErr := k.Engine.Do(ctx, "inspect", "--format", "{{json .State}}\n{{json .NetworkSettings}}\n{{json .Mounts}}\n{{json .HostConfig}}", c.Name)
			return errors.Join(err, descErr, os.WriteFile(filepath.Join(to, "console.log"), console, 0o644), os.WriteFile(filepath.Join(to, "container.jsonl"), []byte(described), 0o644))
		})
	}
	return g.Wait()
}

// Export has kind's library put a cluster into a kubeconfig, under the name kind-NAME.
func (k *Kind) Export(ctx context.Context, name, kubeconfig string) error {
	return within(ctx, time.Minute, "write the kubeconfig", func() error { return k.lib.ExportKubeConfig(name, kubeconfig, false) })
}

func names(all []container.Container) (names []string) {
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names
}

// Expired are the clusters whose time is over. One that kubewright did not make has none.
func (k *Kind) Expired(ctx context.Context, now time.Time) (names []string, err error) {
	all, err := k.Engine.Containers(ctx, clusterLabel)
	for _, c := range all {
		if c.Labels[roleLabel] != "control-plane" {
			continue
		}
		if m, err := k.marked(ctx, c.Name); err == nil && !m.Expires.IsZero() && m.Expires.Before(now) {
			names = append(names, c.Labels[clusterLabel])
		}
	}
	return names, errors.Join(err, ctx.Err())
}
