package fleet

import (
	"bytes"
	"context"
	"maps"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// store is the content stores of all hosts: whose is meant, says the connection.
type store struct {
	content.Store // nil: what is not here, nobody asks
}

// blob is some content, with the labels that its host has given it.
type blob struct {
	bytes  []byte
	labels map[string]string
}

func (b blob) info(d digest.Digest) content.Info {
	return content.Info{Digest: d, Size: int64(len(b.bytes)), CreatedAt: began, UpdatedAt: began, Labels: b.labels}
}

var began = time.Now()

func (store) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	r := runtimeOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.blobs[d]
	if !ok {
		return content.Info{}, errdefs.ErrNotFound
	}
	return b.info(d), nil
}

func (store) Update(ctx context.Context, info content.Info, fields ...string) (content.Info, error) {
	r := runtimeOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.blobs[info.Digest]
	if !ok {
		return info, errdefs.ErrNotFound
	}
	labels := maps.Clone(b.labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, f := range fields {
		if name, ok := strings.CutPrefix(f, "labels."); ok {
			labels[name] = info.Labels[name]
		} else if f == "labels" {
			labels = info.Labels
		}
	}
	b.labels = labels
	r.blobs[info.Digest] = b
	return b.info(info.Digest), nil
}

func (store) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	r := runtimeOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.blobs[desc.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return reader{bytes.NewReader(b.bytes)}, nil
}

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

func (store) Abort(context.Context, string) error { return nil }

func (store) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	return &writer{runtime: runtimeOf(ctx), ref: o.Ref}, nil
}

type writer struct {
	*runtime
	ref    string
	bytes  []byte
	digest digest.Digest
}

func (w *writer) Write(b []byte) (int, error) {
	w.bytes = append(w.bytes, b...)
	return len(b), nil
}

func (w *writer) Close() error          { return nil }
func (w *writer) Digest() digest.Digest { return w.digest }

func (w *writer) Truncate(size int64) error {
	w.bytes = w.bytes[:size]
	return nil
}

func (w *writer) Status() (content.Status, error) {
	return content.Status{Ref: w.ref, Offset: int64(len(w.bytes)), StartedAt: began, UpdatedAt: began}, nil
}

func (w *writer) Commit(_ context.Context, _ int64, expected digest.Digest, opts ...content.Opt) error {
	var info content.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return err
		}
	}
	one, d := intern(w.bytes)
	if w.digest = digest.Digest(d); expected != "" && w.digest != expected {
		return errdefs.ErrFailedPrecondition
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blobs[w.digest] = blob{one, info.Labels}
	return nil
}
