package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	partialPrefix = ".part-" // a blob that is being downloaded, with the hex of its digest
	parallel      = 6        // downloads at a time
	attempts      = 5        // in a row that bring nothing new
	maxBlob       = 4 << 30  // of a blob whose size nobody has said
	maxPause      = 30 * time.Second
)

// unknown is the size of a blob that only its digest is known of.
const unknown = -1

// finalError is one that another attempt would meet as well.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// busyError is a server that asks to be left alone for a while.
type busyError struct {
	status string
	after  time.Duration
}

func (e busyError) Error() string { return e.status }

// answered tells what a status means; nil is a body worth reading.
func answered(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusOK, code == http.StatusPartialContent:
		return nil
	case code == http.StatusNotFound, code == http.StatusGone:
		return finalError{errNowhere}
	case code == http.StatusTooManyRequests, code >= 500:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return busyError{resp.Status, min(time.Duration(seconds)*time.Second, maxPause)}
	case code == http.StatusForbidden: // as some stores say of what they do not have
		return finalError{fmt.Errorf("%s: %w", resp.Status, errNowhere)}
	case code == http.StatusUnauthorized:
		return finalError{fmt.Errorf("%s: log in with `docker login %s`, as the user who runs this", resp.Status, resp.Request.URL.Host)}
	default:
		return finalError{errors.New(resp.Status)}
	}
}

// again calls f until it succeeds, or has failed several times in a row without progress.
func (r *Remote) again(ctx context.Context, f func() (progress bool, err error)) error {
	for failures := 0; ; {
		progress, err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var final finalError
		if errors.As(err, &final) {
			return err
		}
		if failures++; progress {
			failures = 1
		}
		if failures == attempts {
			return fmt.Errorf("%w (tried %d times); what came stays, run the same again", err, attempts)
		}
		wait := min(r.pause<<(failures-1), maxPause)
		var busy busyError
		if errors.As(err, &busy) && busy.after > 0 {
			wait = busy.after
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// download brings a blob into dir from the first location that has it. It goes on where an
// earlier download was cut short, and a server may cut it short as often as it likes, as long
// as something comes each time. Bytes that are not what they should be are never kept.
// moved, if not nil, hears how much of the blob is here.
func (r *Remote) download(ctx context.Context, dir string, want blob, from []location, moved func(done, total int64)) (string, error) {
	p, err := openPart(dir, want)
	if err != nil {
		return "", err
	}
	defer p.Close()
	if moved == nil {
		moved = func(_, _ int64) {}
	}
	moved(p.size, want.size)
	var errs []error
	for i, l := range from {
		p.resumed = p.resumed || i > 0 && p.size > 0 // what another location sent may be wrong
		err := r.again(ctx, func() (bool, error) {
			before := p.size
			err := r.receive(ctx, p, l, moved)
			if err == nil {
				err = p.check()
			}
			return p.size > before, err
		})
		if err == nil {
			return p.path, nil
		}
		if errors.Is(err, errMismatch) {
			err = errors.Join(err, p.discard())
		}
		if l.optional && errors.Is(err, errNowhere) && len(from) > 1 {
			continue // most mirrors have none of these
		}
		err = fmt.Errorf("%s: %w", l.url, err)
		errs = append(errs, err)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, errWrong) || ctx.Err() != nil {
			return "", err // another location would not mend it, or it must be seen
		}
	}
	if p.size == 0 {
		errs = append(errs, os.Remove(p.path))
	}
	return "", errors.Join(errs...)
}

// receive asks a location for what p lacks.
func (r *Remote) receive(ctx context.Context, p *part, l location, moved func(done, total int64)) error {
	if p.want.size != unknown && p.size == p.want.size {
		return nil
	}
	client, err := l.client(ctx)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
	if err != nil {
		return finalError{err}
	}
	if l.accept != "" {
		req.Header.Set("Accept", l.accept)
	}
	if p.size > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", p.size))
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && p.size > 0 {
		p.whole = true // there is no more
		return nil
	}
	if err := answered(resp); err != nil {
		return err
	}
	start := int64(0)
	if resp.StatusCode == http.StatusPartialContent {
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &start); err != nil {
			return finalError{fmt.Errorf("answers with the range %q", resp.Header.Get("Content-Range"))}
		}
	}
	if start != p.size { // it does not know ranges, or not these
		if start != 0 {
			return finalError{fmt.Errorf("was asked for bytes from %d, and sends them from %d", p.size, start)}
		}
		if err := p.restart(); err != nil {
			return err
		}
	}
	total := p.want.size
	if total == unknown && resp.ContentLength > 0 {
		total = p.size + resp.ContentLength
	}
	p.total = total
	buf := make([]byte, 128<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if err := p.add(buf[:n]); err != nil {
				return err
			}
			moved(p.size, total)
		}
		switch {
		case err == io.EOF && p.want.size != unknown && p.size < p.want.size:
			return fmt.Errorf("ends after %d of %d bytes", p.size, p.want.size)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}
