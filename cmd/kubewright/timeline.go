package main

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers"
)

func newTimeline(out func() output) *cobra.Command {
	o := &fleetOptions{out: out}
	cmd := &cobra.Command{
		Use:   "timeline [-f FILE] PICTURE",
		Short: "Draw the last run that changed anything: hosts as rows, phases as bars",
		Long: `Draw the last run that changed anything as a picture, .html or .svg: hosts as rows, phases as bars,
so that one sees what waited for what. It comes from the journals of the hosts of a document, over
SSH, or of the containers of a cluster; without one, from the journal of this host. "kubewright up
--timeline" draws as it runs.`,
		Example: `  kubewright timeline -f cluster.yaml run.html
  kubewright timeline --name ci run.html
  kubewright timeline init.svg`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name the picture to write: run.html, or run.svg")
			}
			return checkPicture(args[0])
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.within(cmd.Context(), func(ctx context.Context) error { return o.runTimeline(ctx, args[0]) })
		},
	}
	o.reachFlags(cmd)
	o.kind.nameFlags(cmd)
	delete(cmd.Flags().Lookup("file").Annotations, cobra.BashCompOneRequiredFlag)
	return cmd
}

func checkPicture(file string) error {
	switch filepath.Ext(file) {
	case ".html", ".svg":
		return nil
	}
	return fmt.Errorf("%s: a picture's name ends with .html or .svg", file)
}

func (o *fleetOptions) runTimeline(ctx context.Context, file string) error {
	var machines []*phases.Machine
	if !o.named() {
		name, err := os.Hostname()
		if err != nil {
			return err
		}
		m := &phases.Machine{Host: providers.Local().Host}
		m.Node.Name = name
		if m.Journal, err = phases.OpenJournal(ctx, m.Host); err != nil {
			return err
		}
		machines = []*phases.Machine{m}
	} else {
		c, err := o.document(ctx)
		if err != nil {
			return misuse(err)
		}
		o.tolerant = true
		f, err := o.connect(ctx, c, "")
		if err != nil {
			return err
		}
		defer f.close()
		machines = f.machines
	}
	var latest time.Time
	for _, m := range machines {
		if m.Err != nil {
			fmt.Fprintln(os.Stderr, "without", m.Node.Name+":", m.Err)
		}
		if _, began := m.Journal.Bars(""); began.After(latest) {
			latest = began
		}
	}
	var bars []phases.Bar
	for _, m := range machines {
		if own, began := m.Journal.Bars(m.Node.Name); began.Equal(latest) {
			bars = append(bars, own...)
		}
	}
	if bars == nil {
		return errors.New("no journal tells of a run: nothing was ever changed here, or by an older kubewright")
	}
	return drawTimeline(file, bars)
}

//go:embed timeline.svg.tmpl
var timelineSVG string

// Of the picture, in pixels.
const (
	barHeight, laneHeight = 16, 19
	leftMargin, topMargin = 150, 34
	drawnWidth            = 1100
)

type drawnBar struct {
	X, Y, Width  float64
	Phase, Title string
	State        phases.State
	Label        bool // there is room for it
}

type drawnHost struct {
	Name      string
	Y, Height float64
	Bars      []drawnBar
}

// drawTimeline writes the picture, whole or not at all.
func drawTimeline(file string, bars []phases.Bar) error {
	b, err := timeline(bars)
	if err != nil {
		return err
	}
	if filepath.Ext(file) == ".html" {
		b = slices.Concat([]byte("<!doctype html>\n<meta charset=\"utf-8\">\n<title>kubewright</title>\n<body style=\"margin:0\">\n"), b)
	}
	return replace(file, b)
}

func timeline(bars []phases.Bar) ([]byte, error) {
	begin, end := bars[0].Begin, bars[0].Begin
	for _, b := range bars {
		if b.Begin.Before(begin) {
			begin = b.Begin
		}
		if e := b.Begin.Add(time.Duration(b.Seconds * float64(time.Second))); e.After(end) {
			end = e
		}
	}
	total := max(end.Sub(begin).Seconds(), 0.1)
	scale := drawnWidth / total
	slices.SortStableFunc(bars, func(a, b phases.Bar) int { return cmp.Or(a.Begin.Compare(b.Begin), cmp.Compare(a.Phase, b.Phase)) })
	var hosts []*drawnHost
	lanes := map[string][]float64{} // where the last bar of each lane of a host ends
	byName := map[string]*drawnHost{}
	for _, b := range bars {
		h := byName[b.Host]
		if h == nil {
			h = &drawnHost{Name: b.Host}
			hosts, byName[b.Host] = append(hosts, h), h
		}
		from := b.Begin.Sub(begin).Seconds()
		lane := slices.IndexFunc(lanes[b.Host], func(until float64) bool { return until <= from })
		if lane < 0 {
			lane = len(lanes[b.Host])
			lanes[b.Host] = append(lanes[b.Host], 0)
		}
		lanes[b.Host][lane] = from + b.Seconds
		width := max(b.Seconds*scale, 1)
		h.Bars = append(h.Bars, drawnBar{X: leftMargin + from*scale, Y: float64(lane * laneHeight), Width: width, Phase: b.Phase, State: b.State,
			Title: fmt.Sprintf("%s: %s, %s, from %.2f s for %.2f s", b.Host, b.Phase, b.State, from, b.Seconds), Label: width > 6.2*float64(len(b.Phase))})
	}
	slices.SortStableFunc(hosts, func(a, b *drawnHost) int { return strings.Compare(a.Name, b.Name) })
	y := float64(topMargin)
	for _, h := range hosts {
		h.Y, h.Height = y, float64(len(lanes[h.Name])*laneHeight)
		for i := range h.Bars {
			h.Bars[i].Y += y
		}
		y += h.Height + 10
	}
	type tick struct {
		X     float64
		Label string
	}
	var ticks []tick
	step := tickStep(total)
	for s := 0.0; s <= total; s += step {
		ticks = append(ticks, tick{leftMargin + s*scale, fmt.Sprintf("%g s", s)})
	}
	var text bytes.Buffer
	err := template.Must(template.New("timeline").Parse(timelineSVG)).Execute(&text, map[string]any{
		"Width": leftMargin + drawnWidth + 20, "Height": y + 30, "Bottom": y, "Top": topMargin - 8, "Bar": barHeight, "Hosts": hosts, "Ticks": ticks,
		"Title": fmt.Sprintf("kubewright, %s, %.1f s", begin.Local().Format(time.DateTime), total),
	})
	return text.Bytes(), err
}

// tickStep is a round number of seconds, of which about ten make the whole.
func tickStep(total float64) float64 {
	for _, step := range []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600} {
		if total/step <= 12 {
			return step
		}
	}
	return 1800
}
