package kubeadm

import (
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/config"
)

var update = flag.Bool("update", false, "rewrite the list of kubeadm's fields from its source")

const (
	list      = "testdata/v1beta4.txt"
	kubeadmOf = "k8s.io/kubernetes@v1.36.3"
)

var ours = []string{"ClusterConfiguration", "InitConfiguration", "JoinConfiguration"}

// Every field that kubeadm has is honoured or refused, and we know none that it lacks.
func TestEveryFieldIsHonouredOrRefused(t *testing.T) {
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Fields(string(b))
	known := map[string]bool{}
	for _, kind := range ours {
		for _, f := range leaves(kind, kinds[kind].form) {
			known[f] = true
		}
	}
	whole := map[string]bool{} // what is refused with everything in it
	for _, r := range refused {
		known[r.path], whole[r.path] = true, true
	}
	covers := func(f string) bool {
		for parent := f; parent != ""; parent = parent[:max(strings.LastIndex(parent, "."), 0)] {
			if whole[parent] || parent == f && known[f] {
				return true
			}
		}
		return false
	}
	for _, f := range theirs {
		if !covers(f) {
			t.Errorf("%s is neither in types.go nor in refused.go", f)
		}
	}
	for f := range known {
		isTheirs := slices.ContainsFunc(theirs, func(have string) bool { return have == f || strings.HasPrefix(have, f+".") })
		isGate := strings.HasPrefix(f, "ClusterConfiguration.featureGates.")
		if !isTheirs && !isGate && !strings.HasPrefix(f, "Kube") {
			t.Errorf("kubeadm has no field %s", f)
		}
	}
}

// leaves are the fields of a type of ours that hold no type of ours.
func leaves(path string, t reflect.Type) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	var out []string
	if t.Kind() == reflect.Struct && strings.Contains(t.PkgPath(), "/kubewright") && t != reflect.TypeFor[featureGates]() { // a map there
		for _, f := range reflect.VisibleFields(t) {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "apiVersion" && name != "kind" {
				out = append(out, leaves(path+"."+name, f.Type)...)
			}
		}
	}
	if out == nil {
		return []string{path}
	}
	return out
}

// A field that has a place in a type changes what comes out, or is an error: none gets lost
// on the way.
func TestNoFieldIsDropped(t *testing.T) {
	base := map[string]string{
		"ClusterConfiguration": "", "InitConfiguration": "",
		"JoinConfiguration": "discovery: {bootstrapToken: {apiServerEndpoint: a, token: abcdef.0123456789abcdef, unsafeSkipCAVerification: true}}\n",
	}
	// Values that are not obvious from the type.
	samples := map[string]any{
		"bootstrapTokens.token": "aaaaaa.0123456789abcdef", "bootstrapTokens.expires": "2030-01-01T00:00:00Z",
		"bootstrapTokens.usages": []any{"signing"}, "bootstrapTokens.groups": []any{"system:bootstrappers:x"},
		"discovery.bootstrapToken.token": "aaaaaa.0123456789abcdef", "discovery.tlsBootstrapToken": "aaaaaa.0123456789abcdef",
		"discovery.bootstrapToken.unsafeSkipCAVerification": false, "featureGates": map[string]any{"RootlessControlPlane": true},
		"kubernetesVersion": "v1.36.0", "localAPIEndpoint.advertiseAddress": "10.0.0.1", "controlPlane.localAPIEndpoint.advertiseAddress": "10.0.0.1",
	}
	for _, kind := range ours {
		head := "apiVersion: " + version + "\nkind: " + kind + "\n" + base[kind]
		without, err := Parse([]byte(head))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range leaves(kind, kinds[kind].form) {
			_, field, _ := strings.Cut(path, ".")
			object, err := config.Object([]byte(head))
			if err != nil {
				t.Fatal(err)
			}
			put(object, kinds[kind].form, strings.Split(field, "."), samples[field])
			b, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			with, err := Parse(b)
			if err == nil {
				with.Unkept = without.Unkept
				if cmp.Equal(without, with) {
					t.Errorf("%s is dropped: %s", path, b)
				}
			} else if !strings.Contains(err.Error(), strings.Split(path, ".")[1]) {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// put sets the field at a path to a value, or to one that its type takes.
func put(object map[string]any, form reflect.Type, path []string, value any) {
	var t reflect.Type
	for _, f := range reflect.VisibleFields(form) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name == path[0] {
			t = f.Type
		}
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	inList := t.Kind() == reflect.Slice
	if len(path) > 1 {
		inner, _ := object[path[0]].(map[string]any)
		if inner == nil {
			inner = map[string]any{}
		}
		object[path[0]] = inner
		if inList {
			t = t.Elem()
			object[path[0]] = []any{inner}
		}
		put(inner, t, path[1:], value)
		return
	}
	switch {
	case value != nil:
	case t == reflect.TypeFor[config.Duration]():
		value = "7m"
	case t.Kind() == reflect.Bool:
		value = true
	case t.Kind() == reflect.Int32:
		value = 7000
	case inList && t.Elem().Kind() == reflect.String:
		value = []any{"some"}
	case inList:
		value = []any{map[string]any{}}
	case t.Kind() == reflect.Map:
		value = map[string]any{"some": "thing"}
	default:
		value = "some"
	}
	object[path[0]] = value
}

// The list is what kubeadm's source says.
func TestTheListOfFieldsIsKubeadms(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads the source of " + kubeadmOf)
	}
	out, err := exec.Command("go", "mod", "download", "-json", kubeadmOf).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	types := map[string]*ast.StructType{}
	for _, file := range []string{"kubeadm/v1beta4/types.go", "bootstraptoken/v1/types.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(module.Dir, "cmd/kubeadm/app/apis", file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					types[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	var fields []string
	for _, kind := range ours {
		fields = append(fields, sourceLeaves(kind, ast.NewIdent(kind), types)...)
	}
	slices.Sort(fields)
	got := strings.Join(fields, "\n") + "\n"
	if *update {
		if err := os.WriteFile(list, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// sourceLeaves is leaves, of types that are only text.
func sourceLeaves(path string, t ast.Expr, types map[string]*ast.StructType) []string {
	switch e := t.(type) {
	case *ast.StarExpr:
		return sourceLeaves(path, e.X, types)
	case *ast.ArrayType:
		return sourceLeaves(path, e.Elt, types)
	case *ast.SelectorExpr:
		t = e.Sel
	}
	var out []string
	if name, ok := t.(*ast.Ident); ok && types[name.Name] != nil {
		for _, f := range types[name.Name].Fields.List {
			if len(f.Names) == 0 { // embedded: its fields are ours
				if inner, ok := f.Type.(*ast.Ident); ok {
					out = append(out, sourceLeaves(path, inner, types)...)
				}
				continue
			}
			name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
			if name != "-" {
				out = append(out, sourceLeaves(path+"."+name, f.Type, types)...)
			}
		}
	}
	if out == nil {
		return []string{path}
	}
	return out
}
