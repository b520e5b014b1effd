package cloud

import (
	"slices"
	"strings"
)

// A call notes which of its parameters are asked for: what nobody asks for is said, so that nobody believes that the
// stand-in did it.

func (q *call) noted(name string) params {
	first, _, _ := strings.Cut(name, ".")
	if q.read == nil {
		q.read = map[string]bool{}
	}
	q.read[first] = true
	return q.params
}

func (q *call) str(name string) string           { return q.noted(name).str(name) }
func (q *call) has(name string) bool             { return q.noted(name).has(name) }
func (q *call) yes(name string) bool             { return q.noted(name).yes(name) }
func (q *call) or(name, otherwise string) string { return q.noted(name).or(name, otherwise) }
func (q *call) num(name string, otherwise int) int {
	return q.noted(name).num(name, otherwise)
}
func (q *call) strs(name string) []string { return q.noted(name).strs(name) }
func (q *call) under(name string) params  { return q.noted(name).under(name) }
func (q *call) each(name string) []params { return q.noted(name).each(name) }

// always are parameters of all calls, and those with which the SDK says what is so anyway.
var always = []string{"Action", "Version", "ClientToken", "DryRun", "MaxResults", "NextToken", "PageSize", "MaxItems", "Marker"}

// ignored are the parameters that nobody asked for.
func (q *call) ignored() (all []string) {
	for k := range q.params {
		first, _, _ := strings.Cut(k, ".")
		if !q.read[first] && !slices.Contains(always, first) && !slices.Contains(all, first) {
			all = append(all, first)
		}
	}
	slices.Sort(all)
	return all
}
