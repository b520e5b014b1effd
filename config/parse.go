package config

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Load reads and decodes a document, strictly; "-" is standard input. It neither
// defaults nor validates: [Cluster.Default] and [Cluster.Validate] do.
func Load(path string) (*Cluster, error) {
	b, err := Read(path)
	if err != nil {
		return nil, err
	}
	c, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Read reads a file of documents; "-" is standard input.
func Read(path string) ([]byte, error) {
	if path == "-" {
		path = "/dev/stdin"
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the cluster document: %w", err)
	}
	return b, nil
}

// Parse decodes one document. Unknown fields and wrong types are errors, all of them at
// once, each with its path; so are duplicate keys, and a second document in the file.
func Parse(b []byte) (*Cluster, error) {
	object, err := Object(b)
	if err != nil && err != errNoObject {
		return nil, err
	}
	if n := len(Documents(b)); n > 1 {
		return nil, fmt.Errorf("%d documents: write one Cluster, and no more, into the file", n)
	}
	if err == errNoObject {
		return nil, errors.New("not a cluster document: write an object that begins with apiVersion: " + APIVersion)
	}
	if object["apiVersion"] != APIVersion || object["kind"] != Kind {
		return nil, fmt.Errorf("apiVersion %s, kind %s: write apiVersion: %s and kind: %s", quoted(object["apiVersion"]), quoted(object["kind"]), APIVersion, Kind)
	}
	if misfits := Misfits("", object, reflect.TypeFor[Cluster]()); misfits != nil {
		for i, m := 0, bareAccount.FindSubmatch(b); m != nil && i < len(misfits); i++ {
			if strings.HasPrefix(misfits[i].Error(), "spec.provider.aws.account: ") {
				misfits[i] = fmt.Errorf("spec.provider.aws.account: YAML takes it for a number: write %q, in quotes", m[1])
			}
		}
		return nil, Errors(&multierror.Error{Errors: misfits})
	}
	if n, given, _ := unstructured.NestedFieldNoCopy(object, "spec", "provider", "kind", "controlPlanes"); given && fmt.Sprint(n) == "0" {
		return nil, errors.New("spec.provider.kind.controlPlanes: 0: a cluster has one at least: write 1, or leave it out")
	}
	j, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	strict, err := kjson.UnmarshalStrict(j, c) // keeps integers in maps what they are
	return c, errors.Join(append(strict, err)...)
}

// bareAccount is looked for in what was written: of a number that begins with 0 YAML makes another one.
var bareAccount = regexp.MustCompile(`\baccount"?: *([0-9]{12})\b`)

func quoted(v any) string {
	if v == nil {
		return "is missing"
	}
	return fmt.Sprintf("%q", fmt.Sprint(v))
}

var duplicateKey = regexp.MustCompile(`line (\d+): key (.*) already set in map`)

// notYAML says in our words what is in the way of reading a document at all.
func notYAML(err error) error {
	var all *multierror.Error
	for _, m := range duplicateKey.FindAllStringSubmatch(err.Error(), -1) {
		all = multierror.Append(all, fmt.Errorf("line %s: the key %s is there twice: keep one", m[1], m[2]))
	}
	if all != nil {
		return Errors(all)
	}
	return fmt.Errorf("not a YAML document: %w", err)
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// fits compares decoded JSON with the type that will hold it, and reports what has no
// place there. Decoders stop at the first wrong type, and do not always say where it is.
func (p *problems) fits(path string, v any, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	object, isObject := v.(map[string]any)
	list, isList := v.([]any)
	decodesItself := reflect.PointerTo(t).Implements(jsonUnmarshaler) || reflect.PointerTo(t).Implements(textUnmarshaler)
	switch {
	case v == nil: // the same as leaving it out
	case t.Kind() == reflect.Struct && isObject && !decodesItself:
		fields := fieldsOf(t)
		for _, name := range slices.Sorted(maps.Keys(object)) {
			if f, ok := fields[name]; ok {
				p.fits(join(path, name), object[name], f)
			} else {
				p.add(join(path, name), "unknown field: %s", choice(fields, t))
			}
		}
	case t.Kind() == reflect.Map && isObject:
		for _, key := range slices.Sorted(maps.Keys(object)) {
			p.fits(join(path, key), object[key], t.Elem())
		}
	case t.Kind() == reflect.Slice && isList:
		for i, item := range list {
			p.fits(fmt.Sprintf("%s[%d]", path, i), item, t.Elem())
		}
	default:
		b, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(b, reflect.New(t).Interface())
		}
		if err != nil {
			p.add(path, "is %s, write %s", described(v), wanted(t))
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// fieldsOf are the JSON names of a struct's fields.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			fields[name] = f.Type
		}
	}
	return fields
}

// choice lists the fields there are, where a person would read them all.
func choice(fields map[string]reflect.Type, t reflect.Type) string {
	if len(fields) > 30 {
		return "see the reference of " + t.Name()
	}
	return "write one of " + strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
}

func described(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("the string %q", v)
	case bool:
		return fmt.Sprint(v)
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("the number %v", v)
}

func wanted(t reflect.Type) string {
	switch {
	case t.Name() == "Duration":
		return "a duration such as 10m or 8760h"
	case t.Name() == "Time":
		return "a time such as 2026-01-31T12:00:00Z"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Int32:
		return "a whole number of at most 32 bits"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	}
	return "a " + t.String()
}

// Print writes the document as YAML, defaults included, as Parse reads it.
func (c *Cluster) Print() ([]byte, error) { return yaml.Marshal(c) }

// Errors gives many errors as one, one line each, or nil.
func Errors(all *multierror.Error) error {
	if all == nil || len(all.Errors) == 0 {
		return nil
	}
	all.ErrorFormat = func(es []error) string {
		if len(es) == 1 {
			return es[0].Error()
		}
		lines := make([]string, len(es))
		for i, e := range es {
			lines[i] = "  - " + e.Error()
		}
		return fmt.Sprintf("%d problems:\n%s", len(es), strings.Join(lines, "\n"))
	}
	return all
}
