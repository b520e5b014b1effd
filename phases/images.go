package phases

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// wantedImages are the images of the bundle that this host will run.
func (t *Target) wantedImages() []bundle.Artifact {
	if t.Bundle == nil || t.engine() != containerd {
		return nil
	}
	var wanted []bundle.Artifact
	for _, a := range t.Bundle.Images(t.Platform()) {
		switch {
		case t.everything:
			wanted = append(wanted, a)
		case bundle.IsOwnImage(a.Name) && t.Bundle.Remote() && !t.Bundle.Has([]bundle.Artifact{a}): // a cluster runs without it
		case a.Name == t.Cluster.Spec.ControlPlane.LoadBalancer.Image && !t.runsLoadBalancer():
		case t.controlPlane() || !manifests.IsControlPlaneImage(a.Name):
			wanted = append(wanted, a)
		}
	}
	return wanted
}

// imports are the images that this host will run and has not, before anything is installed.
func (t *Target) imports(ctx context.Context) []bundle.Artifact {
	wanted := t.wantedImages()
	if t.ownsContainerd() && !slices.Contains(t.Facts.Sockets, t.endpoint()) { // nobody listens there yet
		return wanted
	}
	return t.absent(ctx, wanted)
}

// glance is what preflight saw of a runtime of ours. It holds until something is written down: then
// something is about to be done.
type glance struct {
	mu       sync.Mutex
	lines    int               // of the journal, with these images
	images   []bundle.Artifact // all there
	answered int               // lines of the journal, when it answered
}

// glanceAt asks whether the runtime answers, while preflight asks for its images.
func (t *Target) glanceAt(ctx context.Context) {
	if t.had == nil || !t.ownsContainerd() || !slices.Contains(t.Facts.Sockets, t.endpoint()) {
		return
	}
	lines := t.Journal.length()
	if _, err := t.runtimeVersion(ctx); err == nil {
		t.had.mu.Lock()
		defer t.had.mu.Unlock()
		t.had.answered = lines
	}
}

// all tells that the images are there.
func (g *glance) all(lines int, images []bundle.Artifact) bool {
	if g == nil || lines == 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return lines == g.lines && slices.Equal(images, g.images)
}

// hasAnswered tells that there is nothing to wait for.
func (t *Target) hasAnswered() bool {
	if t.had == nil {
		return false
	}
	t.had.mu.Lock()
	defer t.had.mu.Unlock()
	return t.had.answered > 0 && t.had.answered == t.Journal.length()
}

// absent are those of the images that the host has not. A runtime that does not answer has those that were
// imported into it before.
func (t *Target) absent(ctx context.Context, wanted []bundle.Artifact) []bundle.Artifact {
	lines := t.Journal.length()
	if t.had.all(lines, wanted) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	absent, err := t.Bundle.Absent(ctx, t.dialRuntime, wanted)
	if err != nil {
		return slices.DeleteFunc(slices.Clone(wanted), t.Journal.imported)
	}
	if len(absent) == 0 && t.had != nil {
		t.had.mu.Lock()
		defer t.had.mu.Unlock()
		t.had.lines, t.had.images = lines, wanted
	}
	return absent
}

func (t *Target) dialRuntime(ctx context.Context) (net.Conn, error) {
	return t.Host.Dial(ctx, "unix", t.socket())
}

// images imports what is not there with the right digest. Without a bundle the runtime
// pulls what it lacks, when it starts the pod.
func images(ctx context.Context, t *Target) error {
	if t.Bundle == nil || t.engine() != containerd {
		return nil
	}
	return t.importImages(ctx, t.absent(ctx, t.wantedImages()))
}

func (t *Target) importImages(ctx context.Context, wanted []bundle.Artifact) error {
	var steps []Step
	for _, a := range wanted {
		steps = append(steps, Step{Kind: anImage, Name: a.Name, After: a.Digest})
	}
	if r, ok := t.Host.(*host.Recorder); ok { // containerd's API has no form that only lists
		for _, a := range wanted {
			r.Note("%s", a.Name)
		}
		return nil
	}
	if len(wanted) == 0 {
		return nil
	}
	if err := t.note(ctx, steps...); err != nil {
		return err
	}
	if err := t.fetch(ctx, wanted); err != nil {
		return err
	}
	done, err := t.upload(ctx)
	if err != nil {
		return err
	}
	defer done()
	outcomes, err := t.Bundle.Import(ctx, t.dialRuntime, wanted, bundle.ImportOptions{
		Pinned:   []string{t.Cluster.Spec.Runtime.SandboxImage},
		Progress: t.items(),
	})
	for _, o := range outcomes {
		if o.Imported {
			t.changed(1)
		}
	}
	return err
}

// requiredImages are those of the static pods and of the addons that may run on the node.
func requiredImages(c *config.Cluster, n config.Node) []string {
	list := append([]string{c.Spec.Runtime.SandboxImage}, addons.Images(c)...)
	if n.Has(config.ControlPlaneRole) {
		list = append(list, manifests.Images(c)...)
	} else if _, ok := c.InternalEndpoint(); ok {
		list = append(list, c.Spec.ControlPlane.LoadBalancer.Image)
	}
	return list
}
