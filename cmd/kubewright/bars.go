package main

import (
	"io"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/kubewright/kubewright/phases"
)

// bars shows what is being moved, with its bytes, below the lines that are done.
type bars struct {
	all  *mpb.Progress
	open map[string]*mpb.Bar
}

func newBars(w io.Writer) *bars {
	return &bars{all: mpb.New(mpb.WithOutput(w), mpb.WithWidth(40)), open: map[string]*mpb.Bar{}}
}

// Write prints above the bars.
func (b *bars) Write(p []byte) (int, error) { return b.all.Write(p) }

func (b *bars) progress(e phases.Event) {
	key := e.Host + " " + e.Phase + " " + e.Item
	bar := b.open[key]
	if bar == nil {
		bar = b.all.AddBar(max(e.Total, 0), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(e.Item, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.AverageETA(decor.ET_STYLE_GO, decor.WC{C: decor.DSyncSpace})))
		bar.DecoratorAverageAdjust(e.Time)
		b.open[key] = bar
	}
	if e.Total > 0 {
		bar.SetTotal(e.Total, false) // nobody may have known it before
		bar.EnableTriggerComplete()
	}
	bar.SetCurrent(e.Done)
}

func (b *bars) wait() {
	for _, bar := range b.open {
		bar.Abort(true)
	}
	b.all.Wait()
}
