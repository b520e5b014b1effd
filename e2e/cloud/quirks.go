package cloud

import (
	"cmp"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Options are how the cloud behaves. The zero Options are an obliging one: nothing takes time, nothing fails.
type Options struct {
	Keys    map[string]Key      // by id; empty: one, [TestKey]
	Regions map[string][]string // zones of each; empty: those of [Regions]

	Latency  time.Duration            // of each call
	Delay    time.Duration            // that states take: pending, provisioning, deleting
	Delays   map[string]time.Duration // of a kind, in place of Delay: instance, natgateway, load-balancer, network-interface
	Lag      int                      // so many looks do not see a new resource of EC2 or IAM
	PageSize int                      // at most so much in an answer; 0: what AWS has
	Throttle int                      // of so many calls, one is refused; 0: none
	Expire   int                      // the credentials expire after so many calls; 0: never

	Limits      map[string]int  // quotas by kind, in place of those of new accounts: vpc, elastic-ip, natgateway, vcpu, load-balancer...
	NoCapacity  map[string]bool // "t3.medium/eu-west-1a" cannot be had now
	Unsupported map[string]bool // ... nor ever

	// Before is asked ahead of each call; what it returns is the answer. After sees it done. Both may take their time, or
	// kill somebody.
	Before func(Call) *Error
	After  func(Call)

	Check    time.Duration                    // between two health checks; 0: what the target group has
	Machines Machines                         // what instances are; nil: nothing
	Log      func(format string, args ...any) // what the stand-in does not know; nil for silence
}

// FailNth is a Before that has the n-th call of an action fail, the first being 1.
func FailNth(action string, n int, e *Error) func(Call) *Error {
	var seen atomic.Int64
	return func(c Call) *Error {
		if c.Action == action && seen.Add(1) == int64(n) {
			return e
		}
		return nil
	}
}

// Change changes how the cloud behaves from now on.
func (c *Cloud) Change(f func(*Options)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.options)
}

type answered struct {
	asked  string
	answer doc
}

// due is what becomes so later.
type due struct {
	at time.Time
	do func()
}

// once does a call with a token once, and answers the same to the same.
func (q *call) once(do func(*call) doc) doc {
	token := q.str("ClientToken")
	if token == "" {
		return do(q)
	}
	key, asked := q.home()+" "+q.Action+" "+token, q.canonical()
	if len(token) > 64 {
		fail("InvalidParameterValue", "ClientToken: at most 64 ASCII characters")
	}
	if before, ok := q.c.tokens[key]; ok {
		if before.asked != asked {
			fail("IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).")
		}
		made, _ := before.answer["instancesSet"].([]*resource)
		if len(made) > 0 && !slices.ContainsFunc(made, func(r *resource) bool { return !r.ended() }) { // so since 2025; before, they were the answer
			fail("IdempotentInstanceTerminated", "The client token you have provided is associated with a terminated instance. Please use a different client token.")
		}
		q.params = params{}
		return before.answer
	}
	answer := do(q)
	q.c.tokens[key] = answered{asked, answer}
	return answer
}

// later does something when the states of a kind have taken their time.
func (q *call) later(kindName string, do func()) {
	delay, ok := q.c.options.Delays[kindName]
	if !ok {
		delay = q.c.options.Delay
	}
	q.c.due = append(q.c.due, due{time.Now().Add(delay), do})
}

// settle does what is due. It may add to it.
func (c *Cloud) settle() {
	for now := time.Now(); ; {
		i := slices.IndexFunc(c.due, func(d due) bool { return !d.at.After(now) })
		if i < 0 {
			return
		}
		do := c.due[i].do
		c.due = slices.Delete(c.due, i, i+1)
		do()
	}
}

// limit fails with that code when there are as many as the quota allows.
func (q *call) limit(kindName string, standard, have int, code string) {
	limit := standard
	if l, ok := q.c.options.Limits[kindName]; ok {
		limit = l
	}
	if have >= limit {
		fail(code, "The maximum number of %s has been reached: %d", kindName, limit)
	}
}

func throttled(service string) *Error {
	if service == "ec2" {
		return &Error{"RequestLimitExceeded", "Request limit exceeded.", http.StatusServiceUnavailable}
	}
	return &Error{"Throttling", "Rate exceeded", http.StatusBadRequest}
}

// Regions are those of an empty Options, with their zones.
func Regions() map[string][]string {
	all := map[string][]string{}
	for region, zones := range map[string]string{"eu-west-1": "abc", "eu-central-1": "abc", "us-east-1": "abcdef", "us-west-2": "abcd", "ap-southeast-2": "abc",
		"cn-north-1": "abd", "us-gov-west-1": "abc"} {
		for _, z := range zones {
			all[region] = append(all[region], region+string(z))
		}
	}
	return all
}

// zone fails for one that is not of the region; none is any.
func (q *call) zone(name string) string {
	zones := q.c.options.Regions[q.Region]
	if name = cmp.Or(name, zones[0]); !slices.Contains(zones, name) {
		fail("InvalidParameterValue", "Value (%s) for parameter availabilityZone is invalid. Subnets can currently only be created in the following availability zones: %v.", name, zones)
	}
	return name
}
