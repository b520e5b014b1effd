package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kubewright/kubewright/verify"
)

// reporter tells of each result as it comes, on standard error; nil: nobody wants to hear it.
func (o *verifyOptions) reporter(w io.Writer) func(verify.Result) {
	switch o.format {
	case "json":
		events := json.NewEncoder(w)
		return func(r verify.Result) { must(events.Encode(r)) }
	case "junit":
		return func(r verify.Result) { fmt.Fprintf(w, "%s %s (%.1fs)\n", r.Name, r.Status, r.Seconds) }
	}
	return nil
}

// unseen tells of a host that cannot be looked at.
func (o *verifyOptions) unseen(w io.Writer, name string, why error) {
	if o.format == "json" {
		must(json.NewEncoder(w).Encode(map[string]string{"host": name, "state": "unseen", "message": why.Error()}))
		return
	}
	fmt.Fprintf(w, "%s: not looked at over SSH: %v\n", name, why)
}

func count(results []verify.Result) map[verify.Status]int {
	all := map[verify.Status]int{}
	for _, r := range results {
		all[r.Status]++
	}
	return all
}

func (o *verifyOptions) print(w io.Writer, results []verify.Result, took time.Duration) error {
	switch o.format {
	case "json":
		return json.NewEncoder(w).Encode(struct {
			Kind    string                `json:"kind"`
			Seconds float64               `json:"seconds"`
			Count   map[verify.Status]int `json:"count"`
			Results []verify.Result       `json:"results"`
		}{"Verify", took.Seconds(), count(results), results})
	case "junit":
		return printJUnit(w, results, took)
	}
	if err := printResults(w, results); err != nil {
		return err
	}
	n := count(results)
	_, err := fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped, in %.1f s\n", n[verify.Pass], n[verify.Fail], n[verify.Skipped], took.Seconds())
	return err
}

func (o *verifyOptions) clean(ctx context.Context, w io.Writer) error {
	names, err := verify.Cleanup(ctx, o.Kubeconfig)
	if err != nil {
		return err
	}
	return o.removed(w, names)
}

func (o *verifyOptions) removed(w io.Writer, names []string) error {
	if o.format == "json" {
		return json.NewEncoder(w).Encode(map[string][]string{"removed": append([]string{}, names...)})
	}
	if len(names) == 0 {
		_, err := fmt.Fprintln(w, "nothing was left")
		return err
	}
	_, err := fmt.Fprintln(w, "removed:", strings.Join(names, ", "))
	return err
}

// printResults: a detail of several lines, one for each thing that is broken, stays in its column.
func printResults(w io.Writer, results []verify.Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "ROW\tCHECK\tRESULT\tTIME\tDETAIL")
	for _, r := range results {
		detail := strings.ReplaceAll(strings.TrimSpace(r.Detail), "\n", "\n\t\t\t\t")
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1fs\t%s\n", row(r.Row), r.Name, r.Status, r.Seconds, detail)
	}
	return t.Flush()
}

// The form that began with Ant's JUnit task, as far as readers agree on it.
type (
	junitSuite struct {
		XMLName  xml.Name    `xml:"testsuite"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"` // seconds
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitMessage `xml:"failure"`
		Skipped *junitMessage `xml:"skipped"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"` // the first line
		Text    string `xml:",chardata"`
	}
)

func printJUnit(w io.Writer, results []verify.Result, took time.Duration) error {
	seconds := func(s float64) string { return fmt.Sprintf("%.3f", s) }
	n := count(results)
	suite := junitSuite{Name: "kubewright verify", Tests: len(results), Failures: n[verify.Fail], Skipped: n[verify.Skipped], Time: seconds(took.Seconds())}
	for _, r := range results {
		c := junitCase{Class: "kubewright.verify", Name: strings.TrimSpace(row(r.Row) + " " + r.Name + ": " + r.Statement), Time: seconds(r.Seconds)}
		first, _, _ := strings.Cut(r.Detail, "\n")
		message := &junitMessage{first, r.Detail}
		switch r.Status {
		case verify.Fail:
			c.Failure = message
		case verify.Skipped:
			c.Skipped = message
		default:
			c.Out = r.Detail
		}
		suite.Cases = append(suite.Cases, c)
	}
	b, err := xml.MarshalIndent(suite, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, b)
	return err
}
