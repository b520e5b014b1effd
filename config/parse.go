package config

import (
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
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Load reads and decodes a document, strictly; "-" is standard input. It neither
// defaults nor validates: [Cluster.Default] and [Cluster.Validate] do.
func Load(path string) (*Cluster, error) {
	if path == "-" {
		path = "/dev/stdin"
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the cluster document: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse decodes one document. Unknown fields, duplicate keys and wrong types are errors,
// all of them at once, each with its path.
func Parse(b []byte) (*Cluster, error) {
	j, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return nil, fmt.Errorf("not a YAML document: %w", err)
	}
	var head struct{ APIVersion, Kind string }
	if err := json.Unmarshal(j, &head); err != nil {
		return nil, errors.New("not a cluster document: write an object that begins with apiVersion: " + APIVersion)
	}
	if head.APIVersion != APIVersion || head.Kind != Kind {
		return nil, fmt.Errorf("apiVersion %q, kind %q: write apiVersion: %s and kind: %s", head.APIVersion, head.Kind, APIVersion, Kind)
	}
	c := &Cluster{}
	var all *multierror.Error
	strict, err := kjson.UnmarshalStrict(j, c)
	for _, e := range strict {
		all = multierror.Append(all, unknownField(e))
	}
	if err != nil {
		all = multierror.Append(all, wrongType(err))
	}
	return c, Errors(all)
}

var quotedField = regexp.MustCompile(`^unknown field "(.*)"$`)

// unknownField adds to the decoder's complaint the fields that do exist at that place.
func unknownField(err error) error {
	m := quotedField.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	path := strings.Split(m[1], ".")
	known := fieldsAt(reflect.TypeFor[Cluster](), path[:len(path)-1])
	if len(known) == 0 {
		return fmt.Errorf("%s: unknown field", m[1])
	}
	return fmt.Errorf("%s: unknown field: write one of %s", m[1], strings.Join(known, ", "))
}

// fieldsAt lists the JSON names of the struct that path leads to.
func fieldsAt(t reflect.Type, path []string) []string {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	fields := map[string]reflect.Type{}
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			fields[name] = f.Type
		}
	}
	if len(path) == 0 {
		return slices.Sorted(maps.Keys(fields))
	}
	name, _, _ := strings.Cut(path[0], "[")
	if next, ok := fields[name]; ok {
		return fieldsAt(next, path[1:])
	}
	return nil
}

func wrongType(err error) error {
	var te *json.UnmarshalTypeError
	if !errors.As(err, &te) {
		return err
	}
	want := map[reflect.Kind]string{
		reflect.String: "a string", reflect.Bool: "true or false", reflect.Slice: "a list",
		reflect.Map: "an object", reflect.Struct: "an object", reflect.Int32: "a number", reflect.Int64: "a number",
	}[te.Type.Kind()]
	if want == "" {
		want = te.Type.String()
	}
	return fmt.Errorf("%s: is a %s, write %s", te.Field, te.Value, want)
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
