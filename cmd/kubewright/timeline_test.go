package main

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/phases"
)

func TestTimelineHasARowForEachHostAndNoBarsOnEachOther(t *testing.T) {
	begin := time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)
	bar := func(host, phase string, from, seconds float64, state phases.State) phases.Bar {
		return phases.Bar{Host: host, Phase: phase, Begin: begin.Add(time.Duration(from * float64(time.Second))), Seconds: seconds, State: state}
	}
	b, err := timeline([]phases.Bar{
		bar("w-1", "install", 1, 4, phases.Done), bar("cp-1", "install", 0, 3, phases.Done), bar("cp-1", "certs", 1, 1, phases.Unchanged),
		bar("cp-1", "etcd", 3, 0.001, phases.Failed), bar("<host>", "images & more", 0, 5, phases.Done),
	})
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("no XML: %v\n%s", err, text)
		}
	}
	for _, part := range []string{
		`>cp-1</text>`, `>w-1</text>`, `>&lt;host&gt;</text>`, "images &amp; more",
		"cp-1: install, done, from 0.00 s for 3.00 s", "cp-1: certs, unchanged, from 1.00 s for 1.00 s", "cp-1: etcd, failed, from 3.00 s",
		`class="failed"`,
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the picture lacks %q:\n%s", part, text)
		}
	}
	// install and certs overlap, so they lie in two lanes; etcd begins where install ends, in its lane.
	if first, second := strings.Count(text, `y="63" width`), strings.Count(text, `y="82" width`); first != 2 || second != 1 {
		t.Errorf("%d bars in the first lane of cp-1 and %d in the second:\n%s", first, second, text)
	}
}

func TestPicturesHaveKnownNames(t *testing.T) {
	for name, ok := range map[string]bool{"run.html": true, "run.svg": true, "run.png": false, "run": false} {
		if err := checkPicture(name); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
