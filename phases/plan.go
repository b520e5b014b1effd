package phases

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/aymanbagabas/go-udiff"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/host"
)

// Planned is what a phase would do.
type Planned struct {
	Phase string   `json:"phase"`
	Steps []Change `json:"steps"`
}

// Change is one step of a plan. It holds no secrets, and of what is made anew each time
// (keys, certificates, tokens) what it would be, not its bytes.
type Change struct {
	Kind   string   `json:"kind"` // file, command, image, object, etcd
	Action string   `json:"action"`
	Name   string   `json:"name"`           // a path, "Kind namespace/name", an image, or the command in one line
	Mode   string   `json:"mode,omitempty"` // of a file, octal
	Argv   []string `json:"argv,omitempty"` // of a command
	Secret bool     `json:"secret,omitempty"`
	Diff   string   `json:"diff,omitempty"` // unified
}

// Plan lists what a list of phases would do to the target, in the order of the list, and
// changes nothing. Phases that only wait are left out.
func Plan(ctx context.Context, list []Phase, t *Target, skip []string) ([]Planned, error) {
	onHost := &host.Recorder{Host: t.Host}
	inAPI := &APIRecorder{}
	own := *t
	own.Host, own.Journal = onHost, t.Journal.only()
	own.Report = func(e Event) {
		if e.State == Notice && t.Report != nil {
			t.Report(e)
		}
	}
	if live, ok := t.API.(*Client); ok {
		if live.Ready(ctx, "/readyz") == nil { // bounds itself
			inAPI.Live = live
		}
		own.API = inAPI
	}
	if t.Discover != nil {
		own.Discover = func(ctx context.Context) (*Discovery, error) {
			d, err := t.Discover(ctx)
			if err != nil {
				return nil, err
			}
			seen := *d
			if live, ok := d.API.(*Client); ok {
				inAPI.Live = live
			}
			seen.API = inAPI
			return &seen, nil
		}
	}
	inEtcd := &EtcdRecorder{}
	if t.Admit != nil {
		own.Admit = func(ctx context.Context, phase *Target) (*Admission, error) {
			a, err := t.Admit(ctx, phase)
			if err != nil {
				return nil, err
			}
			seen := *a
			if live, ok := a.API.(*Client); ok {
				inAPI.Live = live
			}
			seen.API, seen.Local = inAPI, inAPI
			if a.Etcd != nil {
				if err := inEtcd.look(ctx, a.Etcd); err != nil {
					return nil, err
				}
				seen.Etcd = inEtcd
			}
			return &seen, nil
		}
	}
	if t.Etcd != nil { // of a host that is reset
		if err := inEtcd.look(ctx, t.Etcd); err != nil {
			own.notice("etcd does not answer, so a plan does not say what becomes of its members: %v", err)
		}
		own.Etcd = inEtcd
	}
	var plan []Planned
	files, objects, members := 0, 0, 0
	for _, p := range list {
		if p.Waits || skipped(skip, p.Name) {
			continue
		}
		p.After = nil
		if err := Run(ctx, []Phase{p}, &own, nil); err != nil {
			return plan, err
		}
		planned := Planned{Phase: p.Name}
		for _, s := range onHost.Steps()[files:] {
			files++
			c, err := changeOnHost(s)
			if err != nil {
				return plan, err
			}
			planned.Steps = append(planned.Steps, c)
		}
		for _, s := range inAPI.Steps()[objects:] {
			objects++
			if s.Verb == "wait for" {
				continue
			}
			c, err := changeInAPI(s)
			if err != nil {
				return plan, err
			}
			planned.Steps = append(planned.Steps, c)
		}
		for _, s := range inEtcd.Steps()[members:] {
			members++
			planned.Steps = append(planned.Steps, Change{Kind: "etcd", Action: "change", Name: s})
		}
		if planned.Steps != nil {
			plan = append(plan, planned)
		}
	}
	return plan, nil
}

func changeOnHost(s host.Step) (Change, error) {
	switch {
	case s.Note != "":
		return Change{Kind: "image", Action: "import", Name: s.Note}, nil
	case s.File == nil:
		return Change{Kind: "command", Action: "run", Name: strings.Join(s.Argv, " "), Argv: s.Argv}, nil
	}
	f := s.File
	c := Change{Kind: "file", Action: s.Action, Name: f.Path, Mode: fmt.Sprintf("%04o", f.Perm()), Secret: f.Secret}
	switch {
	case f.Absent:
		c.Diff = diff(f.Path, string(s.Before), "")
	case f.Link != "":
		c.Mode = ""
		c.Diff = fmt.Sprintf("+ link to %s\n", f.Link)
	case f.Dir, s.Action == "mode":
	case f.Secret:
		c.Diff = "(secret, not shown)\n"
	case f.Content.Size() > 1<<20:
		c.Diff = fmt.Sprintf("(%d bytes, %s)\n", f.Content.Size(), f.Content.Digest())
	default:
		src, err := f.Content.Open()
		if err != nil {
			return c, err
		}
		defer src.Close()
		after, err := io.ReadAll(src)
		if err != nil {
			return c, err
		}
		c.Diff = diff(f.Path, string(s.Before), string(after))
	}
	return c, nil
}

func changeInAPI(s APIStep) (Change, error) {
	c := Change{Kind: "object", Action: s.Verb, Name: describe(s.Object), Secret: s.Object.GetKind() == "Secret"}
	switch {
	case s.Before == nil:
		c.Action = "create"
	case s.Verb == "apply":
		c.Action = "update"
	}
	before, err := objectYAML(s.Before)
	if err != nil {
		return c, err
	}
	after, err := objectYAML(s.After)
	if s.Before == nil && s.Object.GetKind() == definition { // Calico's are eight thousand lines
		c.Diff = fmt.Sprintf("(%d lines)\n", strings.Count(after, "\n"))
		return c, err
	}
	c.Diff = diff(c.Name, before, after)
	return c, err
}

// objectYAML is an object without what the API server keeps for itself, and without secrets.
func objectYAML(o addons.Object) (string, error) {
	if o == nil {
		return "", nil
	}
	o = wished(o)
	for _, field := range []string{"data", "stringData"} {
		if values, ok, _ := unstructured.NestedMap(o.Object, field); ok && o.GetKind() == "Secret" {
			for key := range values {
				values[key] = "(secret, not shown)"
			}
			if err := unstructured.SetNestedMap(o.Object, values, field); err != nil {
				return "", err
			}
		}
	}
	b, err := yaml.Marshal(o.Object)
	return string(b), err
}

// wished is an object without what the API server keeps for itself.
func wished(o addons.Object) addons.Object {
	o = o.DeepCopy()
	for _, field := range []string{"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(o.Object, "status")
	return o
}

// same tells whether two objects ask for the same.
func same(a, b addons.Object) bool {
	return a != nil && b != nil && equality.Semantic.DeepEqual(wished(a).Object, wished(b).Object)
}

// What is not the same twice: a plan says what it would be.
var anew = []struct {
	form *regexp.Regexp
	is   func(string) string
}{
	{regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----`), describeCertificate},
	{regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE REQUEST-----.*?-----END CERTIFICATE REQUEST-----`), always("(a certificate request)")},
	{regexp.MustCompile(`(?s)-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----`), always("(a public key)")},
	{regexp.MustCompile(`certificate-authority-data: \S+`), always("certificate-authority-data: (the CA's certificate)")},
	{regexp.MustCompile(`jws-kubeconfig-\w+: \S+`), always("jws-kubeconfig-ID: (a signature)")},
	{regexp.MustCompile(`(?m)^  request: \S+$`), always("  request: (a certificate request)")},
}

func always(s string) func(string) string { return func(string) string { return s } }

// describeCertificate gives what a certificate in PEM is for, and for how long, by the day.
func describeCertificate(text string) string {
	certs, err := certutil.ParseCertsPEM([]byte(text))
	if err != nil {
		return "(a certificate)"
	}
	c := certs[0]
	what := fmt.Sprintf("(certificate of %q, signed by %q, until %s", c.Subject, c.Issuer, c.NotAfter.UTC().Format(time.DateOnly))
	var names []string
	names = append(names, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if names != nil {
		what += ", for " + strings.Join(names, ", ")
	}
	return what + ")"
}

func diff(name, before, after string) string {
	for _, a := range anew {
		before, after = a.form.ReplaceAllStringFunc(before, a.is), a.form.ReplaceAllStringFunc(after, a.is)
	}
	from, to := name, name
	if before == "" {
		from = "/dev/null"
	}
	if after == "" {
		to = "/dev/null"
	}
	return udiff.Unified(from, to, before, after)
}
