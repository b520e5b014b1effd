package e2e

import (
	"archive/tar"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// A thing (a file, an object) by what it means: its fields, flat, as text. What two clusters
// cannot have in common (names, addresses, times, random bytes) is replaced by a word.
type thing map[string]string

// meaning turns values into fields.
type meaning struct {
	replace *strings.Replacer
	made    time.Time // of a file: what its certificates' validity is measured from
	fields  thing
}

func newMeaning(h *lab.Host) *meaning {
	return &meaning{replace: strings.NewReplacer(h.Name, "NODE", h.IP, "ADDRESS"), fields: thing{}}
}

var (
	mac       = regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`)
	timestamp = regexp.MustCompile(`\d{4}-\d\d-\d\d[T-]\d\d[:-]\d\d[:-]\d\dZ?`)
	signed    = regexp.MustCompile(`^eyJ[\w-]+\.\.[\w-]+$`)
)

// add walks a value. Items of lists go by their name, flags by theirs, others by their place;
// text that is YAML, JSON, PEM or base64 of such is looked into.
func (m *meaning) add(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			m.fields[path] = "{}"
		}
		for key, child := range v {
			m.add(below(path, m.replace.Replace(key)), child)
		}
	case []any:
		if len(v) == 0 {
			m.fields[path] = "[]"
		}
		seen := map[string]bool{}
		for i, item := range v {
			key := fmt.Sprint(i)
			switch item := item.(type) {
			case map[string]any:
				if name, ok := item["name"].(string); ok && !seen[name] {
					key, seen[name] = m.replace.Replace(name), true
				}
			case string:
				if flag, value, ok := strings.Cut(item, "="); ok && strings.HasPrefix(flag, "--") {
					m.add(path+"["+flag+"]", value)
					continue
				}
			}
			m.add(path+"["+key+"]", item)
		}
	case string:
		m.text(path, v)
	case nil:
	default:
		b, _ := json.Marshal(v)
		m.fields[path] = string(b)
	}
}

// below is the path of a field in what is at a path.
func below(path, key string) string {
	if strings.ContainsAny(key, "./") {
		return path + "[" + key + "]"
	}
	return strings.TrimPrefix(path+"."+key, ".")
}

func (m *meaning) text(path, s string) {
	if raw, err := base64.StdEncoding.DecodeString(s); err == nil && strings.HasPrefix(string(raw), "-----BEGIN") {
		s = string(raw)
	}
	if strings.HasPrefix(s, "-----BEGIN") {
		m.pem(path, []byte(s))
		return
	}
	var inner map[string]any
	if strings.Contains(s, ":") && yaml.Unmarshal([]byte(s), &inner) == nil && inner != nil {
		m.add(path, map[string]any(inner))
		return
	}
	s = m.replace.Replace(s)
	s = mac.ReplaceAllString(timestamp.ReplaceAllString(s, "TIME"), "MAC")
	m.fields[path] = signed.ReplaceAllString(s, "SIGNATURE")
}

func (m *meaning) pem(path string, rest []byte) {
	for i := 1; ; i++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return
		}
		name := strings.ToLower(block.Type)
		if i > 1 {
			name += fmt.Sprint(i)
		}
		switch at := below(path, name); block.Type {
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				m.fields[at] = err.Error()
				continue
			}
			m.certificate(at, c)
		case "RSA PRIVATE KEY", "EC PRIVATE KEY":
			m.fields[below(path, "private key")] = privateKey(block.Bytes)
		case "PUBLIC KEY":
			key, err := x509.ParsePKIXPublicKey(block.Bytes)
			m.fields[at] = fmt.Sprint(publicKey(key), err)
		default:
			m.fields[at] = "of a kind that kubeadm does not read"
		}
	}
}

var usages = []struct {
	bit  x509.KeyUsage
	name string
}{
	{x509.KeyUsageDigitalSignature, "digitalSignature"}, {x509.KeyUsageKeyEncipherment, "keyEncipherment"},
	{x509.KeyUsageCertSign, "certSign"}, {x509.KeyUsageCRLSign, "CRLSign"},
}

func (m *meaning) certificate(at string, c *x509.Certificate) {
	var names, uses []string
	for _, n := range c.DNSNames {
		names = append(names, m.replace.Replace(n))
	}
	for _, ip := range c.IPAddresses {
		names = append(names, m.replace.Replace(ip.String()))
	}
	slices.Sort(names)
	other := c.KeyUsage
	for _, u := range usages {
		if c.KeyUsage&u.bit != 0 {
			uses = append(uses, u.name)
			other &^= u.bit
		}
	}
	if other != 0 {
		uses = append(uses, fmt.Sprint(other))
	}
	for field, value := range map[string]string{
		"subject": m.replace.Replace(c.Subject.String()), "issuer": m.replace.Replace(c.Issuer.String()), "names": strings.Join(names, " "),
		"usage": strings.Join(uses, " "), "extendedUsage": fmt.Sprint(c.ExtKeyUsage, c.UnknownExtKeyUsage),
		"ca":  fmt.Sprint(c.IsCA, c.BasicConstraintsValid, c.MaxPathLen, c.MaxPathLenZero),
		"key": publicKey(c.PublicKey), "signature": c.SignatureAlgorithm.String(),
		"days":          fmt.Sprint(int(c.NotAfter.Sub(c.NotBefore).Round(24*time.Hour).Hours() / 24)),
		"guessedSerial": fmt.Sprint(c.SerialNumber.BitLen() < 40), // 63 random bits are that few once in ten million
	} {
		m.fields[at+"."+field] = value
	}
	if !m.made.IsZero() {
		m.fields[at+".begins"] = m.made.Sub(c.NotBefore).Round(time.Minute).String() + " before"
	}
}

func publicKey(key any) string {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA-" + strings.ReplaceAll(key.Params().Name, "-", "")
	}
	return fmt.Sprintf("%T", key)
}

func privateKey(der []byte) string {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return publicKey(&key.PublicKey)
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return publicKey(&key.PublicKey)
	}
	return "unknown"
}

// filesOf are those that kubeadm writes, or the kubelet because of kubeadm.
func filesOf(ctx context.Context, t *testing.T, h *lab.Host) map[string]thing {
	t.Helper()
	archive, stderr, err := h.Exec(ctx, nil, "tar", "-C", "/", "-c", "--exclude", "var/lib/etcd/member", "etc/kubernetes", "var/lib/etcd",
		"var/lib/kubelet/config.yaml", "var/lib/kubelet/instance-config.yaml", "var/lib/kubelet/kubeadm-flags.env", "var/lib/kubelet/pki")
	if err != nil {
		t.Fatal(err, stderr) // never the archive: it holds keys
	}
	things := map[string]thing{}
	for r := tar.NewReader(strings.NewReader(archive)); ; {
		f, err := r.Next()
		if err == io.EOF {
			return things
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		m := newMeaning(h)
		m.made = f.ModTime
		m.fields["mode"] = f.FileInfo().Mode().String()
		m.fields["owner"] = fmt.Sprintf("%d:%d", f.Uid, f.Gid)
		if f.Linkname != "" {
			m.text("link", f.Linkname)
		}
		if f.Typeflag == tar.TypeReg {
			m.text("", string(content))
		}
		things[timestamp.ReplaceAllString("/"+f.Name, "TIME")] = m.fields
	}
}

// Kinds that say nothing of their own: controllers derive them from others that are compared,
// or they are the history of a cluster.
var derived = strings.Fields("Event Lease Endpoints EndpointSlice ReplicaSet ControllerRevision Pod CertificateSigningRequest ComponentStatus")

// objectsOf are all objects of a cluster, by kind, namespace and name.
func objectsOf(ctx context.Context, t *testing.T, c *cluster.Cluster) map[string]thing {
	t.Helper()
	lists, err := discovery.NewDiscoveryClientForConfigOrDie(c.Config).ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	client := dynamic.NewForConfigOrDie(c.Config)
	things := map[string]thing{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || slices.Contains(derived, r.Kind) {
				continue
			}
			objects, err := client.Resource(gv.WithResource(r.Name)).List(ctx, metav1.ListOptions{})
			if apierrors.IsMethodNotSupported(err) || apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects.Items {
				m := newMeaning(c.ControlPlane)
				m.object(o)
				things[m.replace.Replace(strings.TrimSuffix(o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName(), "/"))] = m.fields
			}
		}
	}
	return things
}

// object adds what its maker wished, and not what the API server keeps beside that.
func (m *meaning) object(o unstructured.Unstructured) {
	if o.GetKind() == "Secret" {
		data, _, _ := unstructured.NestedStringMap(o.Object, "data")
		for k, v := range data {
			raw, _ := base64.StdEncoding.DecodeString(v)
			m.text(below("data", k), string(raw))
		}
		unstructured.RemoveNestedField(o.Object, "data")
	}
	for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	// Of kubectl and the controllers, about their own work.
	for _, a := range []string{"kubectl.kubernetes.io/last-applied-configuration", "deprecated.daemonset.template.generation", "deployment.kubernetes.io/revision"} {
		unstructured.RemoveNestedField(o.Object, "metadata", "annotations", a)
	}
	if a := o.GetAnnotations(); len(a) == 0 {
		unstructured.RemoveNestedField(o.Object, "metadata", "annotations")
	}
	owners := o.GetOwnerReferences()
	for i := range owners {
		owners[i].UID = ""
	}
	o.SetOwnerReferences(owners)
	unstructured.RemoveNestedField(o.Object, "status")
	m.add("", o.Object)
}
