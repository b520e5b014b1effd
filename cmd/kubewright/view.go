package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

// view shows events on standard error and results on standard output.
type view struct {
	mu    sync.Mutex
	json  *json.Encoder
	err   io.Writer
	color bool
	bars  *bars        // nil but on a terminal
	quiet bool         // only results are shown
	drawn []phases.Bar // that have ended
	hosts int          // that events come from; with more than one, a line says which, and what is unchanged is not shown
	width int          // of the longest name of a host
}

func newView(o output) *view {
	v := &view{err: os.Stderr}
	if o == "json" {
		v.json = json.NewEncoder(os.Stderr)
		return v
	}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		v.color = os.Getenv("NO_COLOR") == ""
		v.bars = newBars(os.Stderr)
		v.err = v.bars
	}
	return v
}

// among has lines say which of some hosts they are of.
func (v *view) among(nodes []config.Node) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hosts = len(nodes)
	for _, n := range nodes {
		v.width = max(v.width, len(n.Name))
	}
}

// hush has only results be shown, or all again.
func (v *view) hush(quiet bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.quiet = quiet
}

// result prints an answer of the command.
func (v *view) result(r any) {
	must(json.NewEncoder(os.Stdout).Encode(r))
}

func (v *view) event(e phases.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if b, ok := phases.BarOf(e); ok {
		v.drawn = append(v.drawn, b)
	}
	if v.quiet {
		return
	}
	if v.json != nil {
		must(v.json.Encode(e))
		return
	}
	if e.State == phases.Progress {
		if v.bars != nil {
			v.bars.progress(e)
		}
		return
	}
	if line := v.line(e); line != "" {
		fmt.Fprintln(v.err, line)
	}
}

// colours of states, as SGR parameters.
var colours = map[phases.State]string{phases.Done: "32", phases.Failed: "31", phases.Notice: "33", phases.Blocked: "33"}

// line is an event in words; empty where a person need not see it.
func (v *view) line(e phases.Event) string {
	state := string(e.State)
	switch e.State {
	case phases.Started:
		return ""
	case phases.Said:
		return "  " + v.host(e) + e.Phase + ": " + e.Message
	case phases.Notice:
		return v.paint(e.State, "! "+v.host(e)+e.Phase+": "+e.Message)
	case phases.Failed:
		return v.paint(e.State, fmt.Sprintf("x %s%-26s %s", v.host(e), e.Phase, "failed")) // the message comes at the end
	case phases.Unchanged:
		if v.hosts > 1 {
			return ""
		}
	case phases.Blocked:
		return "" // of what failed, the error speaks
	}
	mark := "  "
	if e.State == phases.Done {
		mark = "+ "
	}
	s := fmt.Sprintf("%s%s%-26s %s", mark, v.host(e), e.Phase, state)
	if e.Seconds >= 0.05 {
		s += fmt.Sprintf(" %.1fs", e.Seconds)
	}
	return v.paint(e.State, s)
}

// host is the column for the host's name, where there are several, and it is of one.
func (v *view) host(e phases.Event) string {
	if v.hosts < 2 || e.Host == "" {
		return ""
	}
	return fmt.Sprintf("%-*s ", max(14, v.width), e.Host)
}

func (v *view) paint(s phases.State, text string) string {
	if c := colours[s]; v.color && c != "" {
		return "\x1b[" + c + "m" + text + "\x1b[0m"
	}
	return text
}

// close ends the live view; it may be called again.
func (v *view) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.bars != nil {
		v.bars.wait()
		v.bars, v.err = nil, os.Stderr
	}
}
