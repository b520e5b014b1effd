package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/verify"
)

var someResults = []verify.Result{
	{Row: 4, Name: "dns", Statement: "CoreDNS answers", Status: verify.Pass, Seconds: 1.5, Detail: "look-ups answered"},
	{Row: 20, Name: "pod-network", Statement: "all pods reach all pods", Status: verify.Fail, Seconds: 2, Detail: "a <broken> way\nand another"},
	{Row: 29, Name: "optional", Statement: "more", Status: verify.Skipped, Detail: "not yet"},
	{Name: "cleanup", Statement: "nothing stays behind", Status: verify.Pass, Seconds: 3, Detail: "gone"},
}

func TestResultsAsJUnit(t *testing.T) {
	var out bytes.Buffer
	if err := (&verifyOptions{format: "junit"}).print(&out, someResults, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Skipped  int `xml:"skipped,attr"`
		Cases    []struct {
			Name    string `xml:"name,attr"`
			Time    string `xml:"time,attr"`
			Failure *struct {
				Message string `xml:"message,attr"`
				Text    string `xml:",chardata"`
			} `xml:"failure"`
			Skipped *struct {
				Message string `xml:"message,attr"`
			} `xml:"skipped"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v:\n%s", err, out.String())
	}
	if got.Tests != 4 || got.Failures != 1 || got.Skipped != 1 || len(got.Cases) != 4 {
		t.Errorf("got %+v", got)
	}
	failed, skipped, passed := got.Cases[1], got.Cases[2], got.Cases[0]
	if failed.Failure == nil || failed.Failure.Message != "a <broken> way" || failed.Failure.Text != "a <broken> way\nand another" || failed.Name != "20 pod-network: all pods reach all pods" {
		t.Errorf("the failure is %+v", failed)
	}
	if skipped.Skipped == nil || skipped.Skipped.Message != "not yet" || passed.Failure != nil || passed.Skipped != nil || passed.Time != "1.500" {
		t.Errorf("got %+v and %+v", skipped, passed)
	}
	if !strings.HasPrefix(out.String(), "<?xml ") {
		t.Errorf("it begins with %.20q", out.String())
	}
}

func TestResultsAsTextAndJSON(t *testing.T) {
	var text, object bytes.Buffer
	if err := (&verifyOptions{format: "text"}).print(&text, someResults, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"20    pod-network   fail      2.0s   a <broken> way\n", "                                   and another\n", "2 passed, 1 failed, 1 skipped, in 5.0 s\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("want %q in\n%s", want, text.String())
		}
	}
	if err := (&verifyOptions{format: "json"}).print(&object, someResults, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Count   map[string]int
		Results []verify.Result
	}
	if err := json.Unmarshal(object.Bytes(), &got); err != nil || got.Count["fail"] != 1 || len(got.Results) != 4 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A CI system that leaves out all by mistake is not told that all is well.
func TestChecksThatAreNotThere(t *testing.T) {
	for _, args := range [][]string{{"--only", "99"}, {"--skip", "dnss"}, {"--only", "20", "--skip", "pod-network"}} {
		cmd := newVerify()
		cmd.SetArgs(append(args, "--kubeconfig", filepath.Join(t.TempDir(), "none")))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		err := cmd.Execute()
		if wrong := (usageError{}); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "check") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestNothingThatIsRemovedIsAnEmptyList(t *testing.T) {
	var out bytes.Buffer
	if err := (&verifyOptions{format: "json"}).removed(&out, nil); err != nil || out.String() != "{\"removed\":[]}\n" {
		t.Errorf("%s, %v", out.String(), err)
	}
}

func TestAHostThatIsNotLookedAt(t *testing.T) {
	for format, want := range map[string]string{
		"json": `{"host":"w-1","message":"it is down","state":"unseen"}`,
		"text": "w-1: not looked at over SSH: it is down",
	} {
		var out bytes.Buffer
		(&verifyOptions{format: format}).unseen(&out, "w-1", errors.New("it is down"))
		if out.String() != want+"\n" {
			t.Errorf("%s: %s", format, out.String())
		}
	}
}

func TestKubeconfigsOfRunsThatWereKilledGo(t *testing.T) {
	tmp, now := t.TempDir(), time.Now()
	for name, age := range map[string]time.Duration{"kubewright-verify-old": 2 * time.Hour, "kubewright-verify-new": 0, "others": 2 * time.Hour} {
		dir := filepath.Join(tmp, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	forget(tmp)
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != "kubewright-verify-new" || filepath.Base(left[1]) != "others" {
		t.Errorf("left are %q, %v", left, err)
	}
}

// Which cluster is verified: that of --context, else of the document's name, else the current one.
func TestTheContextThatIsVerified(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	two := strings.Replace(others, "contexts:\n", "contexts:\n- {name: prod, context: {cluster: prod, user: prod}}\n", 1)
	two = strings.Replace(two, "clusters:\n", "clusters:\n- {name: prod, cluster: {server: https://192.0.2.9:6443}}\n", 1)
	two = strings.Replace(two, "users:\n", "users:\n- {name: prod, user: {token: secret}}\n", 1)
	if err := os.WriteFile(path, []byte(two), 0o600); err != nil {
		t.Fatal(err)
	}
	prod, test := &config.Cluster{Metadata: config.Metadata{Name: "prod"}}, &config.Cluster{Metadata: config.Metadata{Name: "test"}}
	for name, c := range map[string]struct {
		context  string
		document *config.Cluster
		want     string
	}{
		"the current one":        {"", nil, "https://192.0.2.1:6443"},
		"the document's":         {"", prod, "https://192.0.2.9:6443"},
		"a document's of no one": {"", test, "https://192.0.2.1:6443"},
		"the one that is named":  {"others", prod, "https://192.0.2.1:6443"},
		"one that is not there":  {"none", nil, "it has no context none: it has others, prod"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := (&verifyOptions{kubeconfig: path, context: c.context}).readKubeconfig(c.document)
			got := string(b)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) || err == nil && strings.Count(got, "server:") != 1 {
				t.Errorf("want %s in\n%s", c.want, got)
			}
		})
	}
}
