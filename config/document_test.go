package config

import (
	"strings"
	"testing"
)

func TestDocumentsKeepTheirLines(t *testing.T) {
	file := "# a comment alone\n---\na: 1\n---\n---\nb: 1\nc: 1\nb: 2\n--- # more\nd: 1\nd: 2\n"
	documents := Documents([]byte(file))
	if len(documents) != 3 {
		t.Fatalf("%d documents: %q", len(documents), documents)
	}
	for i, want := range []string{"", "line 8: the key \"b\" is there twice: keep one", "line 11: the key \"d\" is there twice: keep one"} {
		_, err := Object(documents[i])
		if got := message(err); got != want {
			t.Errorf("document %d: %q, want %q", i, got, want)
		}
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimSpace(err.Error())
}
