package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"regexp"

	"sigs.k8s.io/yaml"
)

var separator = regexp.MustCompile(`(?m)^---(\s|$)`)

// Documents are those of a file that hold anything; decoders look at the first alone. Each
// has as many empty lines before it as it needs for errors to name the lines of the file.
func Documents(b []byte) [][]byte {
	var documents [][]byte
	begin := 0
	for _, end := range append(separator.FindAllIndex(b, -1), []int{len(b), len(b)}) {
		d := append(bytes.Repeat([]byte("\n"), bytes.Count(b[:begin], []byte("\n"))), b[begin:end[0]]...)
		if j, err := yaml.YAMLToJSON(d); err != nil || string(j) != "null" {
			documents = append(documents, d)
		}
		begin = end[1]
	}
	return documents
}

var errNoObject = errors.New("not an object")

// Object decodes one YAML document without a type. Numbers stay what they are. A key that
// is there twice is an error.
func Object(b []byte) (map[string]any, error) {
	j, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return nil, notYAML(err)
	}
	numbers := json.NewDecoder(bytes.NewReader(j))
	numbers.UseNumber()
	var object map[string]any
	if err := numbers.Decode(&object); err != nil || object == nil {
		return nil, errNoObject
	}
	return object, nil
}

// Misfits are the places where a decoded object does not fit the type that is to hold it:
// unknown fields and wrong types, each with its path, which begins with the one given.
func Misfits(path string, object any, t reflect.Type) []error {
	p := &problems{}
	p.fits(path, object, t)
	if p.all == nil {
		return nil
	}
	return p.all.Errors
}
