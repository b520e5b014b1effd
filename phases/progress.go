package phases

import (
	"io"
	"sync"
	"time"

	"github.com/kubewright/kubewright/host"
)

// progressInterval is the least time between two reports on the same thing: more can
// nobody read.
const progressInterval = 100 * time.Millisecond

// moving reports how many bytes of an item have been moved; the last report is never left out.
func (t *Target) moving(item string) func(done, total int64) {
	var mu sync.Mutex
	var told time.Time
	var last int64 = -1
	return func(done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if done == last || (done < total || total <= 0) && now.Sub(told) < progressInterval {
			return
		}
		told, last = now, done
		t.report(Event{State: Progress, Item: item, Done: done, Total: total})
	}
}

// progress is a source that tells how much of it has been read.
func (t *Target) progress(item string, s host.Source) host.Source {
	return movingSource{Source: s, report: t.moving(item)}
}

type movingSource struct {
	host.Source
	report func(done, total int64)
}

func (s movingSource) Open() (io.ReadCloser, error) {
	r, err := s.Source.Open()
	return &movingReader{ReadCloser: r, source: s}, err
}

type movingReader struct {
	io.ReadCloser
	source movingSource
	done   int64
}

func (r *movingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.done += int64(n)
	r.source.report(r.done, r.source.Size())
	return n, err
}
