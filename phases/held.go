package phases

import (
	"context"
	"path"
	"strings"

	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/util/version"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubewright/kubewright/config"
)

// heldVersions are those of the images that a runtime has already, where nothing is brought to its host: a cluster
// is made of them rather than of what would have to be pulled.
func (m *Machine) heldVersions(ctx context.Context, c *config.Cluster) (v config.Versions) {
	t := &Target{Cluster: c, Node: m.Node, Host: m.Host, Facts: m.Facts}
	if t.Lacks() || m.Journal.Lock() != "" {
		return v
	}
	var tags []string
	err := t.callRuntime(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := cri.NewImageServiceClient(conn).ListImages(ctx, &cri.ListImagesRequest{})
		for _, i := range r.GetImages() {
			tags = append(tags, i.RepoTags...)
		}
		return err
	})
	if err != nil {
		return v // preflight says why
	}
	of := map[string]*string{"kube-apiserver": &v.Kubernetes, "etcd": &v.Etcd, "coredns": &v.CoreDNS, "pause": &v.Pause, "flannel": &v.Flannel, "haproxy": &v.HAProxy}
	for _, t := range tags {
		name, tag, ok := strings.Cut(path.Base(t), ":")
		if to := of[name]; ok && to != nil && newer(tag, *to) {
			*to = tag
		}
	}
	return v
}

// newer compares tags of images. One that is no version is older than any other.
func newer(tag, than string) bool {
	v, err := version.ParseGeneric(tag)
	if err != nil {
		return than == ""
	}
	old, err := version.ParseGeneric(than)
	return err != nil || old.LessThan(v) || !v.LessThan(old) && tag > than
}
