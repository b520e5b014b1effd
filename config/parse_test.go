package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const head = "apiVersion: kubewright.dev/v1alpha1\nkind: Cluster\n"

func TestParseSaysWhatToWriteInstead(t *testing.T) {
	for name, tt := range map[string]struct{ document, want string }{
		"nothing":               {"", "not a cluster document: write an object that begins with apiVersion: kubewright.dev/v1alpha1"},
		"a list":                {"[]", "not a cluster document: write an object that begins with apiVersion: kubewright.dev/v1alpha1"},
		"a word":                {"cluster", "not a cluster document: write an object that begins with apiVersion: kubewright.dev/v1alpha1"},
		"not YAML":              {"{", "not a YAML document: yaml: line 1: did not find expected node content"},
		"no head":               {"spec: {}", "apiVersion is missing, kind is missing: write apiVersion: kubewright.dev/v1alpha1 and kind: Cluster"},
		"kubeadm's document":    {"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n", `apiVersion "kubeadm.k8s.io/v1beta4", kind "ClusterConfiguration": write apiVersion: kubewright.dev/v1alpha1 and kind: Cluster`},
		"a version of tomorrow": {"apiVersion: kubewright.dev/v1\nkind: Cluster\n", `apiVersion "kubewright.dev/v1", kind "Cluster": write apiVersion: kubewright.dev/v1alpha1 and kind: Cluster`},
		"a head of numbers":     {"apiVersion: 1\nkind: 2\n", `apiVersion "1", kind "2": write apiVersion: kubewright.dev/v1alpha1 and kind: Cluster`},
		"two documents":         {head + "---\n" + head, "2 documents: write one Cluster, and no more, into the file"},
		"duplicate keys":        {head + "spec:\n  dns: {}\n  dns: {}\n", `line 5: the key "dns" is there twice: keep one`},

		"unknown field at the top":     {head + "specs: {}", "specs: unknown field: write one of apiVersion, kind, metadata, spec"},
		"wrong case is unknown":        {head + "Spec: {}", "Spec: unknown field: write one of apiVersion, kind, metadata, spec"},
		"unknown field in an object":   {head + "spec: {network: {cni: {nam: flannel}}}", "spec.network.cni.nam: unknown field: write one of calico, flannel, manifest, mtu, name, weave"},
		"unknown field in a list":      {head + "spec: {hosts: [{name: a}, {nme: b}]}", "spec.hosts[1].nme: unknown field: write one of address, hooks, kubeletArgs, labels, name, otherAddress, providerID, roles, runtimeSocket, ssh, taints"},
		"unknown field of Kubernetes":  {head + "spec: {etcd: {extraEnvs: [{name: A, valueFrom: {fieldRef: {field: x}}}]}}", "spec.etcd.extraEnvs[0].valueFrom.fieldRef.field: unknown field: write one of apiVersion, fieldPath"},
		"unknown field beside inlined": {head + "spec: {etcd: {extraEnvs: [{name: A, valueFrom: {secretKeyRef: {nam: x}}}]}}", "spec.etcd.extraEnvs[0].valueFrom.secretKeyRef.nam: unknown field: write one of key, name, optional"},

		"object for a list":      {head + "spec: {apiServer: {extraArgs: {v: 4}}}", "spec.apiServer.extraArgs: is an object, write a list"},
		"list for an object":     {head + "spec: {network: []}", "spec.network: is a list, write an object"},
		"string for a number":    {head + "spec: {dns: {replicas: many}}", `spec.dns.replicas: is the string "many", write a whole number of at most 32 bits`},
		"fraction":               {head + "spec: {dns: {replicas: 1.5}}", "spec.dns.replicas: is the number 1.5, write a whole number of at most 32 bits"},
		"too large":              {head + "spec: {dns: {replicas: 99999999999}}", "spec.dns.replicas: is the number 99999999999, write a whole number of at most 32 bits"},
		"number for a string":    {head + "spec: {hosts: [{name: a}, {name: 5}]}", "spec.hosts[1].name: is the number 5, write a string"},
		"boolean for a string":   {head + "metadata: {name: yes}", "metadata.name: is true, write a string"},
		"number for a boolean":   {head + "spec: {featureGates: {A: 1}}", "spec.featureGates.A: is the number 1, write true or false"},
		"word for a duration":    {head + "spec: {pki: {validity: year}}", `spec.pki.validity: is the string "year", write a duration such as 10m or 8760h`},
		"number for a duration":  {head + "spec: {pki: {validity: 5}}", "spec.pki.validity: is the number 5, write a duration such as 10m or 8760h"},
		"word for a time":        {head + "spec: {hosts: [{taints: [{timeAdded: now}]}]}", `spec.hosts[0].taints[0].timeAdded: is the string "now", write a time such as 2026-01-31T12:00:00Z`},
		"string for an override": {head + "spec: {kubelet: none}", `spec.kubelet: is the string "none", write an object`},

		"several at once": {head + "sec: {}\nspec: {dns: {replicas: many}, network: {podCidr: x}, pki: {validity: year}}", `4 problems:
  - sec: unknown field: write one of apiVersion, kind, metadata, spec
  - spec.dns.replicas: is the string "many", write a whole number of at most 32 bits
  - spec.network.podCidr: unknown field: write one of cni, dnsDomain, podCIDR, serviceCIDR
  - spec.pki.validity: is the string "year", write a duration such as 10m or 8760h`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(tt.document))
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseTakesWhatYAMLAllows(t *testing.T) {
	for name, document := range map[string]string{
		"a document alone":          head,
		"markers around it":         "---\n" + head + "---\n",
		"a comment as second":       head + "---\n# nothing here\n",
		"JSON":                      `{"apiVersion":"kubewright.dev/v1alpha1","kind":"Cluster","spec":{"dns":{"replicas":1}}}`,
		"null for what is left out": head + "spec: {dns: null, hosts: null, timeouts: {discovery: null}}",
		"three dashes inside text":  head + "spec:\n  apiServer:\n    extraArgs:\n    - name: v\n      value: |\n        ---\n        x\n",
	} {
		if _, err := Parse([]byte(document)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "absent.yaml")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("absent file: %v", err)
	}
	path := filepath.Join(t.TempDir(), "cluster.yaml")
	if err := os.WriteFile(path, []byte(head+"x: 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), path+": x: unknown field") {
		t.Errorf("bad file: %v", err)
	}
}

// everything sets every field that Print could lose or write differently.
const everything = head + `metadata: {name: big}
spec:
  kubernetesVersion: v1.35.2
  imageRepository: registry.example.org/k8s
  controlPlane: {endpoint: "[fd00::1]:443", certSANs: ["*.example.org", "10.0.0.1"], bindPort: 443}
  apiServer:
    extraArgs: [{name: v, value: "4"}, {name: v, value: ""}]
    extraEnvs: [{name: A, value: b}]
    extraVolumes: [{name: x, hostPath: /x, mountPath: /y, readOnly: true, pathType: File}]
  etcd: {dataDir: /data/etcd, extraEnvs: [{name: ETCD_X, value: "1"}]}
  network: {podCIDR: 10.0.0.0/9, serviceCIDR: 10.128.0.0/16, dnsDomain: example, cni: {name: flannel, flannel: {backend: host-gw, interface: eth1}}}
  kubeProxy: {mode: nftables, config: {conntrack: {maxPerCore: 0}, nftables: {syncPeriod: 5s}}}
  dns: {replicas: 1, disabled: true}
  pki: {algorithm: RSA-3072, validity: 1h30m, caValidity: 9000h}
  kubelet: {maxPods: 250, failSwapOn: false, evictionHard: {memory.available: 5%}, kubeReserved: {cpu: 1500m}, imageGCHighThresholdPercent: 85}
  featureGates: {A: true, B: false}
  timeouts: {discovery: 90s}
  hosts:
  - {name: cp-1, roles: [control-plane], address: 10.1.0.1, taints: []}
  - {name: w-1, labels: {a/b: c, empty: ""}, taints: [{key: k, effect: NoSchedule}], kubeletArgs: [{name: v, value: "2"}]}
  - {name: w-2, roles: []}
`

func TestPrintedDocumentIsReadBackUnchanged(t *testing.T) {
	for name, document := range map[string]string{"nothing": head, "everything": everything} {
		t.Run(name, func(t *testing.T) {
			c, err := Parse([]byte(document))
			if err != nil {
				t.Fatal(err)
			}
			c.Default(Versions{})
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			survives(t, c)
		})
	}
}

// survives checks that a complete document means the same after Print and Parse.
func survives(t *testing.T, c *Cluster) {
	t.Helper()
	printed, err := c.Print()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(printed)
	if err != nil {
		t.Fatalf("%v in\n%s", err, printed)
	}
	if diff := same(c, again); diff != "" {
		t.Errorf("- before, + after:\n%s\n%s", diff, printed)
	}
	again.Default(Versions{Kubernetes: "v1.34.0"})
	if diff := same(c, again); diff != "" {
		t.Errorf("a complete document is defaulted again:\n%s", diff)
	}
}

// same takes nil for empty, but where it makes a difference: [] taints are none, null are the usual ones.
func same(a, b *Cluster) string {
	for i, h := range a.Spec.Hosts {
		if i < len(b.Spec.Hosts) && (h.Taints == nil) != (b.Spec.Hosts[i].Taints == nil) {
			return "taints of host " + h.Name
		}
	}
	return cmp.Diff(a, b, cmpopts.EquateEmpty())
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{head, everything, "", "{", "[]", head + "---\n" + head,
		head + "spec: {hosts: [null, {name: a, labels: null}], kubelet: {a: 1e400, maxPods: 1e2}}",
		head + "spec: {pki: {validity: 1ns}, network: {podCIDR: \"::/0\", serviceCIDR: ::ffff:10.0.0.0/120}}",
		head + "spec: {controlPlane: {endpoint: \"[]:0\", certSANs: [\"\"]}, kubelet: {clusterDNS: [\"\\u2028\\x00\"]}}",
		head + "a: &a [*a]", head + "spec: &s {hosts: [{taints: []}]}\n<<: *s",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		c.Default(Versions{})
		if c.Validate() == nil {
			survives(t, c)
		}
	})
}

func FuzzSplitEndpoint(f *testing.F) {
	for _, seed := range []string{"", ":", "a", "a:1", "::1", "[::1]:6443", "[::1]", "]:[", "1.2.3.4:65536"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := SplitEndpoint(s, 6443)
		if err == nil && (host == "" || port < 1 || port > 65535) {
			t.Errorf("%q gives %q and %d", s, host, port)
		}
	})
}

func TestDurationsAreWrittenAsTheyAreRead(t *testing.T) {
	c, err := Parse([]byte(head + "spec: {timeouts: {discovery: 1h30m}}"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Spec.Timeouts.Discovery.Duration; got != 90*time.Minute {
		t.Errorf("1h30m is read as %s", got)
	}
	printed, err := c.Print()
	if err != nil || !strings.Contains(string(printed), "discovery: 1h30m0s\n") {
		t.Errorf("%v\n%s", err, printed)
	}
}
