package main

import (
	"strings"
	"sync"
	"testing"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

// What is waited for in the cloud is told while a run finds out what its hosts are.
func TestAViewChangesWhileOthersSpeak(t *testing.T) {
	var b strings.Builder
	v := &view{err: &b}
	say := func(what string) {
		v.event(phases.Event{Host: "cp-1", Phase: "machines", State: phases.Said, Message: what})
	}
	var others sync.WaitGroup
	others.Go(func() { say("waiting") })
	v.among([]config.Node{{Name: "cp-1"}, {Name: "a-name-that-is-long"}})
	v.hush(true)
	others.Wait()
	b.Reset()
	say("hushed")
	v.hush(false)
	say("told")
	if want := "  cp-1                machines: told\n"; b.String() != want {
		t.Errorf("%q, not %q", &b, want)
	}
}
