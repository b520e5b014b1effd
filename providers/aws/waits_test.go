package aws

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/kubewright/kubewright/e2e/cloud"
	"github.com/kubewright/kubewright/providers/waits"
)

func TestWhatIsWaitedForIsTold(t *testing.T) {
	w := &waits.List{}
	var mu sync.Mutex
	all := "" // that was waited for when a call came, as if each moment were long
	start(t, cloud.Options{Delay: 300 * time.Millisecond, After: func(cloud.Call) {
		_, words := w.Long(time.Now().Add(6 * time.Second))
		mu.Lock()
		defer mu.Unlock()
		all += strings.Join(words, "; ") + "\n"
	}})
	a, err := New(t.Context(), parse(t, small), w)
	if err != nil {
		t.Fatal(err)
	}
	a.Pause, a.Patience = 20*time.Millisecond, 5*time.Second
	if _, err := a.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the NAT gateway nat-", "the load balancer (provisioning", "control planes to run (pending", "the end of what was made (", "nat-gateway nat being deleted"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing of %q", want)
		}
	}
}

// A group that a stranger's group names stays, and who that is is said.
func TestAStrangersGroupIsNamed(t *testing.T) {
	start(t, cloud.Options{})
	a, ctx := connect(t, parse(t, small)), t.Context()
	if _, err := a.Create(ctx); err != nil {
		t.Fatal(err)
	}
	l := a.look(ctx)
	vpc, err := ourVPCID(l)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := part(l.groups, ofGroup, nodesGroup)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := a.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: sdk.String("database"), Description: sdk.String("x"), VpcId: &vpc})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: theirs.GroupId, IpPermissions: []ec2types.IpPermission{{
		IpProtocol: sdk.String("tcp"), FromPort: sdk.Int32(5432), ToPort: sdk.Int32(5432), UserIdGroupPairs: []ec2types.UserIdGroupPair{{GroupId: nodes.GroupId}}}}}); err != nil {
		t.Fatal(err)
	}
	a.Patience = 300 * time.Millisecond
	_, err = a.Delete(ctx)
	wants(t, err, "security group database (sg-", "whose rules name one of the cluster's")
}

// Where nobody has ever answered, the call is given up before all of its tries; where somebody has, they are all made.
func TestNobodyAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, refused := net.Dial("tcp", l.Addr().String())
	w := &waits.List{}
	b := &backoff{waits: w}
	for attempt := 1; attempt < attempts; attempt++ {
		if _, err := b.BackoffDelay(attempt, refused); (err != nil) != (attempt >= 4) {
			t.Errorf("after %d tries: %v", attempt, err)
		}
	}
	b.answered.Store(true)
	if _, err := b.BackoffDelay(attempts-1, refused); err != nil {
		t.Error(err)
	}
	var d time.Duration
	for range 1000 { // it is any time up to a limit
		if d, err = b.BackoffDelay(attempts-1, refused); d > 10*time.Second {
			break
		}
	}
	if _, words := w.Long(time.Now().Add(6 * time.Second)); len(words) != 1 || !strings.HasPrefix(words[0], "an answer of AWS (dial tcp") {
		t.Errorf("%q is said", words)
	}
	if _, words := w.Long(time.Now().Add(d)); len(words) > 0 {
		t.Errorf("%q is said, and the call is made again", words)
	}
}

// It is waited between two tries, and no longer.
func TestWhatIsNotKnownYetIsWaitedForAloud(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a, tries := &Cloud{waits: &waits.List{}, Pause: 5 * time.Second}, 0
	long := func() string {
		_, words := a.waits.Long(time.Now().Add(6 * time.Second))
		return strings.Join(words, "; ")
	}
	unseen := func() error {
		tries++
		if said := long(); said != "" {
			t.Errorf("at try %d %q is said", tries, said)
		}
		if tries == 2 {
			return nil
		}
		return errUnseen
	}
	if err := a.settle(ctx, unseen); err != nil || tries != 2 {
		t.Errorf("%d tries: %v", tries, err)
	}
	a.Pause = 10 * time.Minute
	over := make(chan error)
	go func() { over <- a.settle(ctx, func() error { return errUnseen }) }()
	for limit := time.Now().Add(20 * time.Second); !strings.HasPrefix(long(), "AWS to know of what was made a moment ago ("); runtime.Gosched() {
		if time.Now().After(limit) {
			t.Error("nothing is said")
			break
		}
	}
	cancel()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
