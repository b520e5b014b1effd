package waits

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestWhatTakesLongIsToldAndToldAgain(t *testing.T) {
	l := &List{}
	var said []string
	begun := time.Now()
	ticks, done, over := make(chan time.Time), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		l.Tell(done, ticks, func(f string, args ...any) { said = append(said, fmt.Sprintf(f, args...)) })
	}()
	at := func(seconds int) { // who takes a tick has done with the one before
		ticks <- begun.Add(time.Duration(seconds)*time.Second + 100*time.Millisecond)
		ticks <- time.Time{}
	}
	is, end := l.Begin("the gateway")
	at(2)
	is("pending")
	at(6)
	at(12)
	_, endOther := l.Begin("the balancer")
	l.For("an answer", "refused", begun.Add(8*time.Second))
	at(7)
	at(20) // nothing new
	at(40)
	end()
	endOther()
	at(80)
	close(done)
	<-over
	want := []string{
		"waiting for the gateway (pending, 6s)",
		"waiting for the gateway (pending, 7s); the balancer (7s); an answer (refused, 7s)",
		"waiting for the gateway (pending, 40s); the balancer (40s)",
	}
	if !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
}

func TestNobodyLooksOn(*testing.T) {
	var l *List
	is, end := l.Begin("x")
	is("y")
	l.For("x", "y", time.Now())
	end()
}
