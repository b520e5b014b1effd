package phases

import (
	"io"
	"time"

	"github.com/kubewright/kubewright/host"
)

// progress is a source that tells how much of it has been read.
func (t *Target) progress(item string, s host.Source) host.Source {
	return reportingSource{Source: s, report: func(done int64) {
		t.report(Event{State: Progress, Item: item, Done: done, Total: s.Size()})
	}}
}

type reportingSource struct {
	host.Source
	report func(done int64)
}

func (s reportingSource) Open() (io.ReadCloser, error) {
	r, err := s.Source.Open()
	return &reportingReader{ReadCloser: r, report: s.report}, err
}

type reportingReader struct {
	io.ReadCloser
	report func(int64)
	done   int64
	told   time.Time
}

// Read tells at most ten times a second, and at the end.
func (r *reportingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.done += int64(n)
	if now := time.Now(); err != nil || now.Sub(r.told) > 100*time.Millisecond {
		r.told = now
		r.report(r.done)
	}
	return n, err
}
