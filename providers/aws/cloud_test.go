package aws

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/cloud"
)

// start serves a stand-in of AWS, to which everything of this test goes.
func start(t *testing.T, o cloud.Options) *cloud.Cloud {
	t.Helper()
	c := cloud.New(o)
	s := httptest.NewServer(c)
	t.Cleanup(c.Close)
	t.Cleanup(s.Close)
	for _, v := range append(cloud.Env(s.URL), "AWS_REGION=eu-west-1", "AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent", "XDG_DATA_HOME="+t.TempDir()) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	return c
}

// parse gives a cluster on AWS, changed by what comes in spec.provider.aws.
func parse(t *testing.T, aws string) *config.Cluster {
	t.Helper()
	text := "apiVersion: kubewright.dev/v1alpha1\nkind: Cluster\nmetadata: {name: prod}\nspec:\n  provider:\n    name: aws\n    aws:\n"
	for _, line := range strings.Split(strings.TrimSpace(aws), "\n") {
		text += "      " + line + "\n"
	}
	c, err := config.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

func connect(t *testing.T, c *config.Cluster) *Cloud {
	t.Helper()
	a, err := New(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.Say, a.Warn = t.Logf, t.Logf
	a.Pause, a.Patience = 20*time.Millisecond, 5*time.Second
	return a
}

const small = "controlPlane: {count: 3}\npools: [{name: workers, count: 2}]"

func TestUpTwiceAndDown(t *testing.T) {
	c := start(t, cloud.Options{})
	d := parse(t, small)
	a := connect(t, d)
	if _, err := a.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	there := c.Resources()
	t.Log(strings.Join(there, "\n"))
	before := len(c.Calls())
	if changes, err := connect(t, parse(t, small)).Create(t.Context()); err != nil || len(changes) > 0 {
		t.Errorf("the second run: %v, %v", changes, err)
	}
	if calls := c.Calls()[before:]; len(calls) > 12 {
		t.Errorf("a run with nothing to do makes %d calls: %s", len(calls), actions(calls))
	}
	for _, h := range d.Spec.Hosts {
		t.Logf("%+v %+v", h, *h.SSH)
	}
	if len(d.Spec.Hosts) != 5 {
		t.Errorf("%d hosts", len(d.Spec.Hosts))
	}
	if n, err := a.Delete(t.Context()); err != nil || n == 0 {
		t.Errorf("deleted %d of %d: %v", n, len(there), err)
	}
	if left := c.Resources(); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
}

func actions(calls []cloud.Call) string {
	var all []string
	for _, c := range calls {
		all = append(all, fmt.Sprintf("%s %s", c.Action, c.Code))
	}
	return strings.Join(all, ", ")
}
