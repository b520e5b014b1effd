package reach

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/reach/probe"
)

// Host is one end of the ways that are looked at.
type Host struct {
	Name    string
	Address netip.Addr // that the others reach it at
	Machine string     // amd64, arm64
	// Start starts a shell program there as root.
	Start func(ctx context.Context, program string) (*host.Pipe, error)
}

// Ask is what is to be found out, of hosts by their places in a list.
type Ask struct {
	From, To int
	Ports    []Port
	Packet   int // in bytes, that has to arrive in one piece; 0: the largest that the interface takes
}

// Way is a port of a host as another one has found it.
type Way struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Port    Port   `json:"port"`
	Reached bool   `json:"reached"`
	Why     string `json:"why,omitempty"` // not
}

// Packet is what a way takes in one piece.
type Packet struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Wanted int    `json:"wanted"` // bytes, with IP's headers
	Passed int    `json:"passed"` // the largest that has come
	// Of the interfaces with the hosts' addresses.
	FromInterface string `json:"fromInterface"`
	FromMTU       int    `json:"fromMTU"`
	ToInterface   string `json:"toInterface"`
	ToMTU         int    `json:"toMTU"`
}

// Result is what was found.
type Result struct {
	Ways    []Way             `json:"ways"`
	Packets []Packet          `json:"packets"`
	Unseen  map[string]string `json:"unseen,omitempty"` // hosts that could not be looked at, and why
}

// Sizes of packets that are tried where the largest does not arrive.
var steps = []int{8950, 8000, 4000, 1500, 1492, 1480, 1472, 1460, 1450, 1440, 1430, 1420, 1410, 1400, 1380, 1360, 1340, 1320, 1300, 1280, 1200, 1000, 576}

const small = 128 // of a packet that only has to arrive

// atATime is how many hosts are begun with at a time: each is sent a megabyte.
const atATime = 200

// Look has hosts listen and send to each other, and reports what has come. Nothing stays on them.
func Look(ctx context.Context, hosts []Host, asks []Ask) Result {
	l := &look{hosts: hosts, asks: asks, run: rand.Text(), seconds: 60 + len(hosts), ends: make([]*end, len(hosts)), errs: make([]error, len(hosts))}
	limit := time.Duration(l.seconds) * time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not answer within %s", limit))
	defer cancel()
	defer l.close()
	l.each(func(i int) error { return l.begin(ctx, i) })
	sends := l.sends()
	l.ask(func(i int) probe.Task { return probe.Task{Send: sends[i]} }, func(e *end, a probe.Answer) { e.failed = a.Failed })
	report := func() {
		l.ask(func(int) probe.Task { return probe.Task{Report: true} }, func(e *end, a probe.Answer) { e.received = a.Received })
	}
	report()
	if smaller := l.smaller(); len(smaller) > 0 {
		l.ask(func(i int) probe.Task { return probe.Task{Send: smaller[i]} }, func(*end, probe.Answer) {})
		report()
	}
	return l.result()
}

// look is one run of Look.
type look struct {
	hosts   []Host
	asks    []Ask
	run     string
	seconds int
	ends    []*end  // nil: it is not looked at
	errs    []error // why not
}

// end is a host that listens.
type end struct {
	pipe     *host.Pipe
	tasks    *json.Encoder
	answers  *json.Decoder
	errs     *printed
	listens  probe.Answer
	failed   []probe.Failed
	received []probe.Received
}

// printed is what a program says on standard error.
type printed struct {
	done chan struct{}
	text []byte
}

func (l *look) asked(i int) bool {
	return slices.ContainsFunc(l.asks, func(a Ask) bool { return a.From == i || a.To == i })
}

// each does something with all hosts that are looked at. Who fails is no longer one.
func (l *look) each(do func(i int) error) {
	var g errgroup.Group
	g.SetLimit(atATime)
	for i := range l.hosts {
		if l.errs[i] == nil && l.asked(i) {
			g.Go(func() error {
				l.errs[i] = do(i)
				return nil
			})
		}
	}
	g.Wait()
}

// begin starts the program on a host, and has it listen.
func (l *look) begin(ctx context.Context, i int) error {
	h := l.hosts[i]
	pipe, packed, err := h.start(ctx)
	if err != nil {
		return err
	}
	e := &end{pipe: pipe, tasks: json.NewEncoder(pipe.In), answers: json.NewDecoder(pipe.Out), errs: &printed{done: make(chan struct{})}}
	l.ends[i] = e
	go func() {
		defer close(e.errs.done)
		e.errs.text, _ = io.ReadAll(io.LimitReader(pipe.Err, 4<<10))
	}()
	if _, err := pipe.In.Write(packed); err != nil {
		return e.ended(err)
	}
	var ports []probe.Port
	for _, a := range l.asks {
		for _, p := range a.Ports {
			if a.To == i && !slices.Contains(ports, p.probe()) {
				ports = append(ports, p.probe())
			}
		}
	}
	e.listens, err = e.do(probe.Task{Run: l.run, Name: h.Name, Address: h.Address.String(), Listen: ports, Seconds: l.seconds})
	return err
}

func (e *end) do(t probe.Task) (a probe.Answer, err error) {
	if err = e.tasks.Encode(t); err == nil {
		err = e.answers.Decode(&a)
	}
	if err != nil {
		err = e.ended(err)
	}
	return a, err
}

// ended is why the program did.
func (e *end) ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) {
		<-e.errs.done // its output ends as well
		if said := strings.TrimSpace(string(e.errs.text)); said != "" {
			return errors.New(said)
		}
		return errors.New("the program that looks has ended there, and did not say why")
	}
	return err
}

// ask gives all hosts a task at the same time, and waits for all answers.
func (l *look) ask(task func(i int) probe.Task, use func(*end, probe.Answer)) {
	l.each(func(i int) error {
		a, err := l.ends[i].do(task(i))
		if err == nil {
			use(l.ends[i], a)
		}
		return err
	})
}

// close ends all programs, and waits until they are gone: their ports will be needed.
func (l *look) close() {
	var wg sync.WaitGroup
	for _, e := range l.ends {
		if e == nil {
			continue
		}
		wg.Go(func() {
			late := time.AfterFunc(5*time.Second, func() { e.pipe.Close() })
			defer late.Stop()
			e.pipe.In.Close()
			io.Copy(io.Discard, io.MultiReader(e.answers.Buffered(), e.pipe.Out))
			e.pipe.Close()
		})
	}
	wg.Wait()
}
