package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// problems collects errors, each with the path of the field that it is about.
type problems struct{ all *multierror.Error }

func (p *problems) add(path, format string, args ...any) {
	p.all = multierror.Append(p.all, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

func (p *problems) oneOf(path, value string, choices []string) {
	if !slices.Contains(choices, value) {
		p.add(path, "%q is unknown: write one of %s", value, strings.Join(choices, ", "))
	}
}

func (p *problems) each(path string, messages []string) {
	for _, m := range messages {
		p.add(path, "%s", m)
	}
}

func (p *problems) name(path, value string, check func(string) []string) {
	if value == "" {
		p.add(path, "there is none: write one")
		return
	}
	p.each(path, check(value))
}
