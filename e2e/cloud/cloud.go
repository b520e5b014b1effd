// Package cloud is a stand-in of AWS on one HTTP address: it speaks the protocols of EC2, ELBv2, IAM and STS to the
// unmodified SDK. There is no internet where our tests run, and an account costs money; so this is no AWS, and what
// passes here has been shown to speak AWS's language, not to please AWS itself.
//
// In go requests, signed as AWS wants them; out come answers from a state that is kept in memory, with what bites in
// the real one: resources that are not seen at once, states that take time, idempotency tokens, dependency
// violations, pages, throttling, quotas, capacity. [Options] says how much of each. Its machines may be those of a lab
// ([Lab]): then instances boot, find their metadata at 169.254.169.254, and its load balancers forward.
//
// It knows nothing of who calls it. Reading order: cloud.go, wire.go, store.go, kinds.go, then the handlers: vpc.go,
// groups.go, instances.go, elb.go, iam.go.
package cloud

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Call is one that came in.
type Call struct {
	N               int // the first is 1
	Service, Action string
	Key             string // its id: a machine's are others than a person's
	Account, Region string
	Partition       string // that the region is of: aws, aws-cn, aws-us-gov
	Params          url.Values
	Code            string   // of the error; empty: it was done
	Ignored         []string // parameters that the stand-in made nothing of
	Begin, End      time.Time
}

// Cloud is an http.Handler.
type Cloud struct {
	mu       sync.Mutex // of all that follows
	options  Options
	services map[string]*service
	all      []*resource
	tokens   map[string]answered
	targets  map[string][]*target // by target group
	due      []due
	calls    []Call
	n        int

	publicIPs int              // so many were given
	sessions  map[string]token // of the metadata service

	changed  chan struct{}          // something may be another for the firewalls
	admitted map[string][]Admission // by instance, what its machine was told

	running sync.WaitGroup // machines that start
	ctx     context.Context
	stop    context.CancelFunc
}

// call is a request while it is handled, with the lock held.
type call struct {
	params
	Call
	c      *Cloud
	caller Key
	read   map[string]bool // parameters that were asked for
}

// New makes an empty cloud.
func New(o Options) *Cloud {
	if len(o.Keys) == 0 {
		o.Keys = map[string]Key{TestKeyID: TestKey}
	}
	if len(o.Regions) == 0 {
		o.Regions = Regions()
	}
	c := &Cloud{options: o, services: services(), tokens: map[string]answered{}, targets: map[string][]*target{}, sessions: map[string]token{},
		changed: make(chan struct{}, 1), admitted: map[string][]Admission{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.addImages()
	if f, ok := o.Machines.(Firewall); ok {
		c.running.Go(func() { c.guard(f) })
	}
	return c
}

// Calls are those that came in so far.
func (c *Cloud) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// Resources are what is there, as "kind id Name" lines in the order in which it was made, but for what the cloud has by
// itself, and for what is deleted already and only still described.
func (c *Cloud) Resources() (all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	for _, r := range c.all {
		if !r.own && !r.ended() {
			all = append(all, fmt.Sprintf("%s %s %s", r.name, r.id, r.tags["Name"]))
		}
	}
	return all
}

// Forget has what is ended no longer be described, as the real one does after an hour. Tokens are kept for a day.
func (c *Cloud) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	c.all = slices.DeleteFunc(c.all, (*resource).ended)
}

// ended is what stays visible for an hour after its end.
func (r *resource) ended() bool {
	return r.is("instanceState.name", "terminated") || r.name == "natgateway" && (r.is("state", "deleted") || r.is("state", "failed"))
}

// service is one of AWS's.
type service struct {
	version, namespace string
	item               string // what an element of a list is called
	actions            map[string]func(*call) doc
}

// touch has the firewalls looked after.
func (c *Cloud) touch() {
	select {
	case c.changed <- struct{}{}:
	default: // it will be looked, anyway
	}
}

// services by the name in the scope of a signature.
func services() map[string]*service {
	return map[string]*service{
		"ec2":                  {"2016-11-15", "http://ec2.amazonaws.com/doc/2016-11-15/", "item", ec2Actions()},
		"elasticloadbalancing": {"2015-12-01", "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/", "member", elbActions()},
		"iam":                  {"2010-05-08", "https://iam.amazonaws.com/doc/2010-05-08/", "member", iamActions()},
		"sts":                  {"2011-06-15", "https://sts.amazonaws.com/doc/2011-06-15/", "member", map[string]func(*call) doc{"GetCallerIdentity": callerIdentity}},
	}
}

// ec2Actions are those of the table of kinds, and those of the handlers.
func ec2Actions() map[string]func(*call) doc {
	all := map[string]func(*call) doc{}
	for i := range kinds {
		all[kinds[i].describe] = func(q *call) doc { return q.describe(&kinds[i]) }
	}
	for _, part := range []map[string]func(*call) doc{vpcActions, gatewayActions, groupActions, instanceActions, templateActions, volumeActions, factActions} {
		maps.Copy(all, part)
	}
	return all
}

func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the client is gone
	}
	form, err := url.ParseQuery(string(body))
	q := &call{params: newParams(form), c: c, Call: Call{Action: form.Get("Action"), Params: form, Begin: time.Now()}}
	scope := scopeOf(r)
	q.Service, q.Region, q.Key = scope.service, scope.region, scope.key
	s := c.services[q.Service]
	if s == nil {
		s = c.services["ec2"]
	}
	id := newID("", 16)
	var e *Error
	var answer doc
	if err != nil || q.Action == "" || form.Get("Version") != s.version {
		e = &Error{"MalformedQueryString", fmt.Sprintf("the stand-in takes POSTed forms of version %s of %s, not version %q, action %q", s.version, q.Service, form.Get("Version"), q.Action), 400}
	} else if e = c.authenticate(q, scope, r, body); e == nil {
		answer, e = c.handle(r.Context(), q, s)
	}
	c.mu.Lock()
	var b []byte
	if q.End = time.Now(); e != nil {
		q.Code = e.Code
	} else {
		b = s.respond(q.Action, answer, id) // what is in it changes without the lock
	}
	c.calls = append(c.calls, q.Call)
	after, log := c.options.After, c.options.Log
	c.mu.Unlock()
	if log != nil && (q.Code == "InvalidAction" || q.Code == "MalformedQueryString") {
		log("%s", e)
	}
	if log != nil && len(q.Ignored) > 0 {
		log("%s: the stand-in makes nothing of %v", q.Action, q.Ignored)
	}
	if after != nil {
		after(q.Call)
	}
	w.Header().Set("X-Amzn-Requestid", id)
	if e != nil {
		s.respondError(w, e, id)
		return
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	_, _ = w.Write(b) // who asked may be gone
}

// Nobody is answered sooner. On loopback, where an answer can begin before the SDK's transport is done with the body of its request,
// one long answer in twenty ended with "use of closed network connection"; with this none in 600. AWS is never so near.
const shortest = 2 * time.Millisecond

// handle does what the call asks for. A client that went away has asked, too.
func (c *Cloud) handle(ctx context.Context, q *call, s *service) (answer doc, e *Error) {
	c.mu.Lock()
	c.n++
	q.N = c.n
	o := c.options
	c.mu.Unlock()
	select {
	case <-time.After(max(o.Latency, shortest)):
	case <-ctx.Done():
	}
	if o.Before != nil {
		if e := o.Before(q.Call); e != nil {
			return nil, e
		}
	}
	if o.Throttle > 0 && q.N%o.Throttle == 0 {
		return nil, throttled(q.Service)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			var ok bool
			if e, ok = r.(*Error); !ok {
				panic(r)
			}
		}
	}()
	c.settle()
	do := s.actions[q.Action]
	if do == nil {
		fail("InvalidAction", "the stand-in does not know the action %s of %s", q.Action, q.Service)
	}
	q.authorizeRole()
	if q.yes("DryRun") {
		return nil, &Error{"DryRunOperation", "Request would have succeeded, but DryRun flag is set.", http.StatusPreconditionFailed}
	}
	defer c.touch()
	answer = q.once(do)
	q.Ignored = q.ignored()
	return answer, nil
}
