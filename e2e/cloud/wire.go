package cloud

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// params are those of a request, by their names on the wire: Filter.1.Name. The "member" that some services put before
// the number is gone.
type params url.Values

func newParams(form url.Values) params {
	p := params{}
	for k, v := range form {
		p[strings.ReplaceAll(k, ".member.", ".")] = v
	}
	return p
}

func (p params) str(name string) string { return url.Values(p).Get(name) }
func (p params) has(name string) bool   { return len(p.under(name)) > 0 || len(p[name]) > 0 }
func (p params) yes(name string) bool   { return p.str(name) == "true" }

// or is the value, or what it is by default.
func (p params) or(name, otherwise string) string {
	if v := p.str(name); v != "" {
		return v
	}
	return otherwise
}

func (p params) num(name string, otherwise int) int {
	if v := p.str(name); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			fail("InvalidParameterValue", "Value (%s) for parameter %s is invalid: not an integer", v, name)
		}
		return n
	}
	return otherwise
}

// strs is a list: name.1, name.2...
func (p params) strs(name string) (all []string) {
	for i := 1; len(p[fmt.Sprint(name, ".", i)]) > 0; i++ {
		all = append(all, p.str(fmt.Sprint(name, ".", i)))
	}
	return all
}

// under is what begins with name and a dot, without that.
func (p params) under(name string) params {
	sub := params{}
	for k, v := range p {
		if rest, ok := strings.CutPrefix(k, name+"."); ok {
			sub[rest] = v
		}
	}
	return sub
}

// each is a list of structures: name.1.X, name.2.X...
func (p params) each(name string) (all []params) {
	for i := 1; ; i++ {
		sub := p.under(fmt.Sprint(name, ".", i))
		if len(sub) == 0 {
			return all
		}
		all = append(all, sub)
	}
}

// canonical is the same for the same parameters.
func (p params) canonical() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", k, p.str(k))
	}
	return b.String()
}

// doc is a structure as it goes over the wire: elements by their names. A value is a string, a number, a bool, a time,
// a doc, a list ([]doc, []string, []*resource, named), or a resource.
type doc map[string]any

// named is a list whose elements have a name of their own.
type named struct {
	item   string
	values []string
}

// encode writes v as an element; item is what the service calls an element of a list.
func encode(b *bytes.Buffer, name, item string, v any) {
	list := func(n int, at func(int) any) {
		for i := range n {
			encode(b, item, item, at(i))
		}
	}
	if v == nil {
		return
	}
	fmt.Fprintf(b, "<%s>", name)
	switch v := v.(type) {
	case doc:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			encode(b, k, item, v[k])
		}
	case *resource:
		d := v.shown()
		for _, k := range slices.Sorted(maps.Keys(d)) {
			encode(b, k, item, d[k])
		}
	case []doc:
		list(len(v), func(i int) any { return v[i] })
	case []string:
		list(len(v), func(i int) any { return v[i] })
	case named:
		item = v.item
		list(len(v.values), func(i int) any { return v.values[i] })
	case []*resource:
		list(len(v), func(i int) any { return v[i] })
	case time.Time:
		b.WriteString(v.UTC().Format("2006-01-02T15:04:05.000Z"))
	case string:
		_ = xml.EscapeText(b, []byte(v)) // a Buffer takes everything
	default:
		fmt.Fprint(b, v)
	}
	fmt.Fprintf(b, "</%s>", name)
}

// Error is what the cloud answers instead of a result.
type Error struct {
	Code, Message string
	Status        int // of HTTP; 0 is 400
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// fail ends the handling of a call with that error: a panic, which the dispatcher takes. A hundred small handlers read
// better so, and what they have to refuse they refuse before they change anything.
func fail(code, format string, args ...any) {
	panic(&Error{Code: code, Message: fmt.Sprintf(format, args...)})
}

func (s *service) respond(action string, result doc, id string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<%sResponse xmlns=%q>", action, s.namespace)
	if s.item == "item" {
		encode(&b, "requestId", "", id)
		for _, k := range slices.Sorted(maps.Keys(result)) {
			encode(&b, k, s.item, result[k])
		}
	} else {
		encode(&b, action+"Result", s.item, result)
		encode(&b, "ResponseMetadata", "", doc{"RequestId": id})
	}
	fmt.Fprintf(&b, "</%sResponse>", action)
	return b.Bytes()
}

func (s *service) respondError(w http.ResponseWriter, e *Error, id string) {
	var b bytes.Buffer
	content := doc{"Code": e.Code, "Message": e.Message}
	if s.item == "item" {
		encode(&b, "Response", "", doc{"Errors": doc{"Error": content}, "RequestID": id})
	} else {
		content["Type"] = "Sender"
		encode(&b, "ErrorResponse", "", doc{"Error": content, "RequestId": id})
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.WriteHeader(max(e.Status, http.StatusBadRequest))
	_, _ = w.Write(b.Bytes()) // who asked may be gone
}
