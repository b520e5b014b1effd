package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// stalling ends requests whose server sends nothing for a while: neither the head of an answer, nor more of its body.
type stalling struct {
	http.RoundTripper
	limit *time.Duration
}

func (s stalling) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	limit := *s.limit
	timer := time.AfterFunc(limit, func() { cancel(fmt.Errorf("nothing came for %s", limit)) })
	resp, err := s.RoundTripper.RoundTrip(req.WithContext(ctx))
	if err != nil {
		timer.Stop()
		err = because(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &stallingBody{resp.Body, limit, ctx, cancel, timer}
	return resp, nil
}

// because adds why a context has ended.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

type stallingBody struct {
	io.ReadCloser
	limit  time.Duration
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (b *stallingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		b.timer.Reset(b.limit)
	} else if err != io.EOF {
		err = because(b.ctx, err)
	}
	return n, err
}

func (b *stallingBody) Close() error {
	b.timer.Stop()
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
