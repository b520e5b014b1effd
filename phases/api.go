package phases

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/host"
)

// FieldManager owns what we apply.
const FieldManager = "kubewright"

// API is the door to a cluster's API server. Objects name themselves: apiVersion, kind,
// namespace (empty: not namespaced) and name.
type API interface {
	// Ready is one look at path (/readyz, /livez); the error holds what the server said.
	Ready(ctx context.Context, path string) error
	// Apply makes objects true by server-side apply, and returns "Kind namespace/name" of
	// those that this changed.
	Apply(ctx context.Context, objects ...addons.Object) ([]string, error)
	// Get returns the live object of that name; what is not there is an [apierrors.IsNotFound].
	Get(ctx context.Context, object addons.Object) (addons.Object, error)
	// List returns the live objects of the kind and namespace of object, with the labels of selector.
	List(ctx context.Context, object addons.Object, selector string) ([]addons.Object, error)
	// Create makes the object, which must not be there yet.
	Create(ctx context.Context, object addons.Object) error
	// Update replaces the live object, if its resourceVersion is still that of object.
	Update(ctx context.Context, object addons.Object) error
	// Delete removes the object; that it is not there is no error.
	Delete(ctx context.Context, object addons.Object) error
	// Until watches the object of that name until accept says so, and returns it.
	// There is no limit but ctx.
	Until(ctx context.Context, object addons.Object, accept func(addons.Object) bool) (addons.Object, error)
}

// Client is the API of a live cluster.
type Client struct {
	config  *rest.Config
	dynamic dynamic.Interface
	http    *http.Client
	server  string
	limit   time.Duration // of one call
	kinds   *sync.Map     // that the server was asked for: schema.GroupVersionResource by schema.GroupVersionKind
}

// NewClient connects with a kubeconfig, through the host's own view of the network. It
// sends nothing yet.
func NewClient(h host.Host, kubeconfig []byte) (*Client, error) {
	cfg, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) { return h.Dial(ctx, network, addr) }
	cfg.QPS = -1 // a few dozen requests in all: the server's own fairness is limit enough
	cfg.UserAgent = "kubewright"
	cfg.WarningHandler = rest.NoWarnings{}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfigAndClient(cfg, client)
	if err != nil {
		return nil, err
	}
	return &Client{config: cfg, dynamic: dyn, http: client, server: cfg.Host, limit: time.Minute, kinds: &sync.Map{}}, nil
}

// Within is the same client with another limit of one call than a minute; zero changes nothing.
func (c *Client) Within(limit time.Duration) *Client {
	own := *c
	if limit > 0 {
		own.limit = limit
	}
	return &own
}

// call bounds one call: who drops packets never answers.
func (c *Client) call(ctx context.Context, o addons.Object, f func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	err := f(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%s did not answer within %s, asked for %s: see whether the API server is up and whether a firewall lets this host reach it, then run the same command again", c.server, c.limit, describe(o))
	}
	return err
}

func (c *Client) Ready(ctx context.Context, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return err
	}
	// A server that accepts and then says nothing is still starting.
	bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	resp, err := c.http.Do(req.WithContext(bounded))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s%s says %s: %s", c.server, path, resp.Status, failing(string(body)))
	}
	return nil
}

// failing keeps the lines of a health report that name what is not healthy.
func failing(report string) string {
	var bad []string
	for line := range strings.Lines(report) {
		if strings.HasPrefix(line, "[-]") {
			bad = append(bad, strings.TrimSpace(line))
		}
	}
	if len(bad) == 0 {
		return strings.TrimSpace(report)
	}
	return strings.Join(bad, "; ")
}

func (c *Client) Apply(ctx context.Context, objects ...addons.Object) ([]string, error) {
	var changed []string
	for _, stage := range stages(objects) {
		results := make([]string, len(stage))
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(8)
		for i, o := range stage {
			g.Go(func() (err error) {
				results[i], err = c.apply(gctx, o)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return changed, err
		}
		var touched []addons.Object
		for i, r := range results {
			if r != "" {
				changed, touched = append(changed, r), append(touched, stage[i])
			}
		}
		if err := c.established(ctx, touched); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// starting bounds how long what an API server refuses is sent again, because it has only
// just begun to answer.
const starting = time.Minute

func (c *Client) apply(ctx context.Context, o addons.Object) (changed string, err error) {
	what := "apply " + describe(o)
	err = untilFinal(ctx, starting, what, func(ctx context.Context) error {
		before, after, err := c.applyOnce(ctx, o)
		switch {
		case err != nil && !notYet(err) && !c.inFlight(ctx, o, err):
			return finalError{fmt.Errorf("%s: %w", what, err)}
		case err == nil && !same(before, after): // not by their versions: controllers write to status meanwhile
			changed = describe(o)
		}
		return err
	})
	return changed, err
}

// notYet tells of an error that an API server gives while it starts: it makes the system's
// namespaces and the range of services after its first answer.
func notYet(err error) bool {
	return noServiceIPs(err) || apierrors.IsNotFound(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) ||
		apierrors.IsInternalError(err) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || utilnet.IsConnectionRefused(err)
}

// noServiceIPs tells of a service whose address the API server calls invalid, because it has
// not yet made, or not yet seen, its own ServiceCIDR (pkg/registry/core/service/ipallocator).
func noServiceIPs(err error) bool {
	return apierrors.IsInvalid(err) && (strings.Contains(err.Error(), "the provided network does not match the current range") ||
		strings.Contains(err.Error(), "allocator not ready"))
}

// inFlight tells of a service whose address is taken, and by no service: the same request, of
// a run that was killed, is still on its way through the API server.
func (c *Client) inFlight(ctx context.Context, o addons.Object, err error) bool {
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "provided IP is already allocated") {
		return false
	}
	services, err := c.List(ctx, ref("v1", "Service", "", ""), "")
	if err != nil {
		return false
	}
	address, _, _ := unstructured.NestedString(o.Object, "spec", "clusterIP")
	return !slices.ContainsFunc(services, func(s addons.Object) bool {
		taken, _, _ := unstructured.NestedString(s.Object, "spec", "clusterIP")
		return taken == address && (s.GetName() != o.GetName() || s.GetNamespace() != o.GetNamespace())
	})
}

// applyOnce returns the object as it was (nil: it was not there) and as it is.
func (c *Client) applyOnce(ctx context.Context, o addons.Object, dryRun ...string) (before, after addons.Object, err error) {
	err = c.call(ctx, o, func(ctx context.Context) error {
		r, err := c.resource(ctx, o)
		if err != nil {
			return err
		}
		before, err = r.Get(ctx, o.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			before, err = nil, nil
		}
		if err == nil {
			after, err = r.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: FieldManager, Force: true, DryRun: dryRun})
		}
		return err
	})
	return before, after, err
}

func (c *Client) Get(ctx context.Context, o addons.Object) (live addons.Object, err error) {
	err = c.call(ctx, o, func(ctx context.Context) error {
		r, err := c.resource(ctx, o)
		if err != nil {
			return err
		}
		live, err = r.Get(ctx, o.GetName(), metav1.GetOptions{})
		return err
	})
	return live, err
}

func (c *Client) List(ctx context.Context, o addons.Object, selector string) (out []addons.Object, err error) {
	err = c.call(ctx, o, func(ctx context.Context) error {
		r, err := c.resource(ctx, o)
		if err != nil {
			return err
		}
		list, err := r.List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return err
		}
		for i := range list.Items {
			out = append(out, &list.Items[i])
		}
		return nil
	})
	return out, err
}

func (c *Client) Create(ctx context.Context, o addons.Object) error {
	return c.call(ctx, o, func(ctx context.Context) error {
		r, err := c.resource(ctx, o)
		if err == nil {
			_, err = r.Create(ctx, o, metav1.CreateOptions{FieldManager: FieldManager})
		}
		return err
	})
}

func (c *Client) Update(ctx context.Context, o addons.Object) error {
	return c.call(ctx, o, func(ctx context.Context) error {
		r, err := c.resource(ctx, o)
		if err == nil {
			_, err = r.Update(ctx, o, metav1.UpdateOptions{FieldManager: FieldManager})
		}
		return err
	})
}

func (c *Client) Delete(ctx context.Context, o addons.Object) error {
	return c.call(ctx, o, func(ctx context.Context) error {
		r, err := c.resource(ctx, o)
		if err == nil {
			err = r.Delete(ctx, o.GetName(), metav1.DeleteOptions{})
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

func (c *Client) Until(ctx context.Context, o addons.Object, accept func(addons.Object) bool) (addons.Object, error) {
	r, err := c.resource(ctx, o)
	if err != nil {
		return nil, err
	}
	only := fields.OneTermEqualSelector("metadata.name", o.GetName()).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.FieldSelector = only
			return r.List(ctx, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.FieldSelector = only
			return r.Watch(ctx, opts)
		},
	}
	e, err := watchtools.UntilWithSync(ctx, lw, o, nil, func(e watch.Event) (bool, error) {
		live, ok := e.Object.(addons.Object)
		return ok && e.Type != watch.Deleted && accept(live), nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s did not become what was waited for: %w", describe(o), err), ctx.Err())
	}
	return e.Object.(addons.Object), nil
}

func describe(o addons.Object) string {
	if o.GetNamespace() == "" {
		return o.GetKind() + " " + o.GetName()
	}
	return o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
}

// ref names an object.
func ref(apiVersion, kind, namespace, name string) addons.Object {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}
