package cloud

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kind is a sort of resource, and how it is described.
type kind struct {
	name     string // ResourceType of TagSpecifications
	prefix   string // of ids
	describe string // the action
	set      string // the element of its answer that is the list
	param    string // the list of ids in its request
	id       string // the element that is the id
	missing  string // the error for an id that is not there
	filters  string // names, "a-b" for the element aB, or "name=path" where they differ; beside the tags, which all have
	unpaged  bool   // the action knows no pages

	tagElement string // where its tags are shown
}

// resource is one thing in the cloud.
type resource struct {
	*kind
	id   string
	home string // account and region
	doc  doc    // as the wire has it

	c      *Cloud
	tags   map[string]string
	attrs  map[string]string // what is asked for by another action, or not at all
	lag    int               // so many looks do not see it yet
	own    bool              // came with another resource, and goes with it
	config params            // what it was made of, where that is needed later
	show   func() doc        // what of doc is computed
	gone   func()            // what ends with it; nil: nothing
}

// shown is the doc with what is computed.
func (r *resource) shown() doc {
	d := maps.Clone(r.doc)
	if r.show != nil {
		maps.Copy(d, r.show())
	}
	if r.tagElement != "" {
		d[r.tagElement] = r.tagList()
	}
	return d
}

func (r *resource) str(path string) string { return strings.Join(values(r.doc, path), ",") }

// is says whether the element at path has, or holds, that value.
func (r *resource) is(path, value string) bool { return slices.Contains(values(r.doc, path), value) }

// values are those at a path of names, through lists.
func values(v any, path string) (all []string) {
	if path == "" {
		switch v := v.(type) {
		case nil:
			return nil
		case []string:
			return v
		default:
			return []string{fmt.Sprint(v)}
		}
	}
	first, rest, _ := strings.Cut(path, ".")
	switch v := v.(type) {
	case doc:
		if sub, ok := v[first]; ok {
			if subs, ok := sub.([]doc); ok {
				for _, s := range subs {
					all = append(all, values(s, rest)...)
				}
				return all
			}
			return values(sub, rest)
		}
	case *resource:
		return values(v.shown(), path)
	}
	return nil
}

func newID(prefix string, bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return prefix + hex.EncodeToString(b)
}

// add makes a resource of EC2, with the tags that the request has for its kind.
func (q *call) add(kindName string, d doc) *resource {
	k := kindOf(kindName)
	r := q.put(k, newID(k.prefix+"-", 9)[:len(k.prefix)+18], d)
	for _, spec := range q.each("TagSpecification") {
		if spec.str("ResourceType") == k.name {
			r.setTags(spec.each("Tag"))
		}
	}
	return r
}

// put keeps a new resource.
func (q *call) put(k *kind, id string, d doc) *resource {
	d[k.id] = id
	r := &resource{kind: k, id: id, home: q.home(), doc: d, c: q.c, tags: map[string]string{}, attrs: map[string]string{}}
	if q.Service != "elasticloadbalancing" { // who sees its own at once: the cloud controller counts on that
		r.lag = q.c.options.Lag
	}
	q.c.all = append(q.c.all, r)
	return r
}

func kindOf(name string) *kind {
	for i := range kinds {
		if kinds[i].name == name {
			return &kinds[i]
		}
	}
	for i := range others {
		if others[i].name == name {
			return &others[i]
		}
	}
	panic("no kind " + name)
}

func (q *call) home() string { return q.Account + "/" + q.Region }

// get is the resource of that kind and id, or the call fails as that kind's does.
func (q *call) get(kindName, id string) *resource {
	k := kindOf(kindName)
	if id == "" {
		fail("MissingParameter", "The request must contain the parameter %s", strings.TrimSuffix(k.param, ".1"))
	}
	r := q.find(kindName, id)
	if r == nil || !r.seen() {
		fail(k.missing, "The %s '%s' does not exist", k.name, id)
	}
	return r
}

func (q *call) find(kindName, id string) *resource {
	for r := range q.of(kindName) {
		if r.id == id {
			return r
		}
	}
	return nil
}

// seen counts a look at what was just made, which may be too early.
func (r *resource) seen() bool {
	if r.lag > 0 {
		r.lag--
		return false
	}
	return true
}

// of are the resources of a kind that the caller has, in the order in which they were made.
func (q *call) of(kindName string) func(func(*resource) bool) {
	return func(yield func(*resource) bool) {
		for _, r := range slices.Clone(q.c.all) {
			if r.name == kindName && (r.home == q.home() || r.home == "/"+q.Region) && !yield(r) {
				return
			}
		}
	}
}

// with are those of a kind whose element at path has that value.
func (q *call) with(kindName, path, value string) (all []*resource) {
	for r := range q.of(kindName) {
		if r.is(path, value) {
			all = append(all, r)
		}
	}
	return all
}

func (c *Cloud) remove(gone ...*resource) {
	for _, r := range gone {
		if r.gone != nil {
			r.gone()
		}
	}
	c.all = slices.DeleteFunc(c.all, func(r *resource) bool { return slices.Contains(gone, r) })
}

// describe answers the Describe of a kind: by ids, by filters, in pages.
func (q *call) describe(k *kind) doc {
	found := q.matching(k, q.strs(k.param))
	for _, id := range q.strs(k.param) {
		if !slices.ContainsFunc(found, func(r *resource) bool { return r.id == id }) && q.find(k.name, id) == nil {
			fail(k.missing, "The %s ID '%s' does not exist", k.name, id)
		}
	}
	return q.page(k.set, found, k.unpaged)
}

func (q *call) matching(k *kind, ids []string) (found []*resource) {
	filters := q.filters(k)
	for r := range q.of(k.name) {
		wanted := slices.Contains(ids, r.id)
		if len(ids) > 0 && !wanted {
			continue
		}
		if !r.seen() {
			if wanted {
				fail(k.missing, "The %s ID '%s' does not exist", k.name, r.id)
			}
			continue
		}
		if !slices.ContainsFunc(filters, func(f func(*resource) bool) bool { return !f(r) }) {
			found = append(found, r)
		}
	}
	return found
}

// filters are those of the request. All must hold, and of each one any of its values.
func (q *call) filters(k *kind) (all []func(*resource) bool) {
	paths := map[string]string{"tag-key": "tagSet.key", "tag-value": "tagSet.value"}
	for _, f := range strings.Fields(k.filters) {
		name, path, ok := strings.Cut(f, "=")
		if !ok {
			path = camel(name)
		}
		paths[name] = path
	}
	for _, f := range q.each("Filter") {
		name := f.str("Name")
		var patterns []*regexp.Regexp
		for _, v := range f.strs("Value") {
			quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(v))
			patterns = append(patterns, regexp.MustCompile("^(?:"+quoted+")$"))
		}
		matches := func(v string) bool {
			return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(v) })
		}
		if key, ok := strings.CutPrefix(name, "tag:"); ok {
			all = append(all, func(r *resource) bool {
				v, ok := r.tags[key]
				return ok && matches(v)
			})
		} else if path := paths[name]; path != "" {
			all = append(all, func(r *resource) bool { return slices.ContainsFunc(values(r, path), matches) })
		} else {
			fail("InvalidParameterValue", "The filter '%s' is invalid", name)
		}
	}
	return all
}

// camel is vpcId for vpc-id; dots stay.
func camel(name string) string {
	words := strings.Split(name, "-")
	for i := 1; i < len(words); i++ {
		words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
	}
	return strings.Join(words, "")
}

// page cuts the list to what was asked for, or to the pages of the options, and says where the next one begins.
func (q *call) page(set string, found []*resource, unpaged bool) doc {
	size := q.num("MaxResults", 1000)
	if q.c.options.PageSize > 0 {
		size = min(size, q.c.options.PageSize)
	}
	from := 0
	if token := q.str("NextToken"); token != "" {
		n, err := strconv.Atoi(strings.TrimPrefix(token, "page-"))
		if err != nil || n > len(found) {
			fail("InvalidNextToken", "The token '%s' is invalid", token)
		}
		from = n
	}
	// A list by ids comes whole.
	if found = found[from:]; unpaged || len(found) <= size {
		return doc{set: found}
	}
	return doc{set: found[:size], "nextToken": fmt.Sprint("page-", from+size)}
}
