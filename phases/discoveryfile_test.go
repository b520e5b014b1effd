package phases

import (
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
)

// file writes a discovery file for a, after change has had its way with it.
func (a *fakeAPI) file(t *testing.T, user *clientcmdapi.AuthInfo, change func(*clientcmdapi.Config)) []byte {
	t.Helper()
	k := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"": {Server: a.URL, CertificateAuthorityData: a.ca()}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "", AuthInfo: "u"}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": user},
		CurrentContext: "x",
	}
	if user == nil { // as cluster-info is
		k.Contexts, k.AuthInfos, k.CurrentContext = nil, nil, ""
	}
	if change != nil {
		change(&k)
	}
	b, err := clientcmd.Write(k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// byFile turns options into those of discovery by file.
func byFile(o *DiscoverOptions, file []byte, token addons.Token) {
	*o = DiscoverOptions{Kubeconfig: file, TLSToken: token, Timeout: o.Timeout}
}

func TestDiscoveryByFile(t *testing.T) {
	minute := config.Timeouts{TLSBootstrap: config.Duration{Duration: time.Minute}}
	for name, change := range map[string]func(a *fakeAPI, info addons.Object, o *DiscoverOptions){
		"without credentials, by a token": func(a *fakeAPI, _ addons.Object, o *DiscoverOptions) {
			byFile(o, a.file(t, nil, nil), token(t))
		},
		"with credentials": func(a *fakeAPI, _ addons.Object, o *DiscoverOptions) {
			byFile(o, a.file(t, &clientcmdapi.AuthInfo{Token: tokenText}, nil), addons.Token{})
		},
		"with credentials, but by a token": func(a *fakeAPI, _ addons.Object, o *DiscoverOptions) {
			byFile(o, a.file(t, &clientcmdapi.AuthInfo{Token: "other"}, nil), token(t))
		},
		"where cluster-info is closed to strangers": func(a *fakeAPI, _ addons.Object, o *DiscoverOptions) {
			byFile(o, a.file(t, nil, nil), token(t))
			a.before = []int{403}
		},
		"where the API server is not up yet": func(a *fakeAPI, _ addons.Object, o *DiscoverOptions) {
			byFile(o, a.file(t, nil, nil), token(t))
			a.before = []int{503, 404}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, d, err := found(t, func(a *fakeAPI, info addons.Object, o *DiscoverOptions) {
				change(a, info, o)
				o.Timeouts = minute
				if err := o.Check(); err != nil {
					t.Error(err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if d.Server != a.URL || string(d.CA) != string(a.ca()) || d.Cluster.Metadata.Name != "ours" {
				t.Errorf("%+v", d)
			}
			if w := d.Cluster.Spec.Timeouts; w.TLSBootstrap.Duration != time.Minute || w.KubeletHealthCheck.Duration != 4*time.Minute {
				t.Errorf("timeouts %+v", w)
			}
			if _, err := d.API.Get(t.Context(), ref("v1", "ConfigMap", "kube-system", addons.ConfigName)); err != nil {
				t.Errorf("its API: %v", err)
			}
		})
	}
}

func TestDiscoveryByAFileThatCannotDo(t *testing.T) {
	other := testCA(t)
	for name, tt := range map[string]struct {
		user   *clientcmdapi.AuthInfo
		change func(*clientcmdapi.Config)
		want   string
		asks   bool // it takes a server to know
	}{
		"no credentials":      {nil, nil, "the discovery file holds no credentials: give the token with which this host may join, --tls-bootstrap-token", false},
		"wrong credentials":   {&clientcmdapi.AuthInfo{Token: "other"}, nil, " does not accept the credentials of the discovery file", true},
		"another CA":          {&clientcmdapi.AuthInfo{Token: tokenText}, func(k *clientcmdapi.Config) { k.Clusters[""].CertificateAuthorityData = other }, " is not the cluster of the discovery file, by whose CA its certificate should be", true},
		"no verification":     {nil, func(k *clientcmdapi.Config) { k.Clusters[""].InsecureSkipTLSVerify = true }, "the discovery file has insecure-skip-tls-verify", false},
		"a program":           {&clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{Command: "false", APIVersion: "client.authentication.k8s.io/v1"}}, nil, "the discovery file gets its credentials from a program", false},
		"no TLS":              {nil, func(k *clientcmdapi.Config) { k.Clusters[""].Server = "http://a" }, `the discovery file names the server "http://a": it must begin with https://`, false},
		"two clusters":        {nil, func(k *clientcmdapi.Config) { k.Clusters["b"] = k.Clusters[""] }, "the discovery file does not say which cluster is meant", false},
		"a context of nobody": {&clientcmdapi.AuthInfo{}, func(k *clientcmdapi.Config) { k.Contexts["x"].Cluster = "b" }, "the discovery file does not say which cluster is meant", false},
	} {
		t.Run(name, func(t *testing.T) {
			a, d, err := found(t, func(a *fakeAPI, _ addons.Object, o *DiscoverOptions) {
				byFile(o, a.file(t, tt.user, tt.change), addons.Token{})
				if early := o.Check() != nil; early == tt.asks {
					t.Errorf("known before: %t", early)
				}
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, not %q: %+v", err, tt.want, d)
			}
			if err != nil && strings.Contains(err.Error(), "not within") {
				t.Errorf("it waited for what waiting does not mend: %v", err)
			}
			if !tt.asks && len(a.asked) > 0 {
				t.Errorf("it asked for %q", a.asked)
			}
		})
	}
	if err := (DiscoverOptions{Kubeconfig: []byte("a: [")}).Check(); err == nil || !strings.Contains(err.Error(), "the discovery file is no kubeconfig") {
		t.Errorf("no YAML: %v", err)
	}
}

func TestATokenOfTheDocumentIsShown(t *testing.T) {
	_, _, err := found(t, func(_ *fakeAPI, _ addons.Object, o *DiscoverOptions) {
		o.TLSToken, _ = addons.ParseToken("aaaaaa.aaaaaaaaaaaaaaaa")
	})
	if err == nil || !strings.Contains(err.Error(), "does not accept the token aaaaaa.<secret>") {
		t.Error(err)
	}
}
