package kubeadm

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubewright/kubewright/config"
)

const (
	initHead    = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n"
	clusterHead = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"
	joinHead    = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\n"
	kubeletHead = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
	proxyHead   = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
	byToken     = "discovery: {bootstrapToken: {apiServerEndpoint: \"a:6443\", token: abcdef.0123456789abcdef, unsafeSkipCAVerification: true}}\n"
)

func TestParseSaysWhatToWriteInstead(t *testing.T) {
	for name, tt := range map[string]struct{ file, want string }{
		"old version":          {strings.Replace(clusterHead, "v1beta4", "v1beta3", 1), "document 1: kubeadm.k8s.io/v1beta3 ClusterConfiguration: only kubeadm.k8s.io/v1beta4 is read: convert the file with `kubeadm config migrate --old-config FILE --new-config NEW`"},
		"of reset":             {strings.Replace(initHead, "Init", "Reset", 1), "document 1: ResetConfiguration: it is for `kubeadm reset`: take it out; kubewright reset has flags"},
		"of upgrade":           {strings.Replace(initHead, "Init", "Upgrade", 1), "document 1: UpgradeConfiguration: it is for `kubeadm upgrade`: take it out"},
		"of something else":    {initHead + "---\napiVersion: v1\nkind: ConfigMap\n", "document 2: v1 ConfigMap: this is no document of kubeadm: the file may hold InitConfiguration, ClusterConfiguration and JoinConfiguration of kubeadm.k8s.io/v1beta4, KubeletConfiguration of kubelet.config.k8s.io/v1beta1 and KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1"},
		"no head":              {initHead + "---\na: b\n", "document 2: it has no apiVersion or no kind: write both"},
		"twice":                {initHead + "---\n" + initHead, "document 2: a second InitConfiguration: write one into the file"},
		"duplicate key":        {initHead + "---\n" + clusterHead + "dns: {}\ndns: {}\n", `document 2: line 7: the key "dns" is there twice: keep one`},
		"unknown field":        {clusterHead + "networking: {podCIDR: 10.0.0.0/16}", "ClusterConfiguration.networking.podCIDR: unknown field: write one of dnsDomain, podSubnet, serviceSubnet"},
		"wrong type":           {clusterHead + "apiServer: {extraArgs: {v: \"4\"}}", "ClusterConfiguration.apiServer.extraArgs: is an object, write a list"},
		"unknown gate":         {clusterHead + "featureGates: {EtcdLearnerMode: true}", "ClusterConfiguration.featureGates.EtcdLearnerMode: unknown field: write one of NodeLocalCRISocket, PublicKeysECDSA, RootlessControlPlane"},
		"kubelet's field":      {kubeletHead + "maxPod: 5", "KubeletConfiguration.maxPod: unknown field: see the reference of KubeletConfiguration"},
		"proxy's field":        {proxyHead + "conntrack: {max: 5}", "KubeProxyConfiguration.conntrack.max: unknown field: write one of maxPerCore, min, tcpBeLiberal, tcpCloseWaitTimeout, tcpEstablishedTimeout, udpStreamTimeout, udpTimeout"},
		"label":                {clusterHead + "kubernetesVersion: stable-1", `ClusterConfiguration.kubernetesVersion: "stable-1" is not a version: write v1.36.3, say, or leave it out for that of the bundle`},
		"two kinds of etcd":    {clusterHead + "etcd: {local: {}, external: {endpoints: [https://a:2379]}}", "ClusterConfiguration.etcd: local and external: write one of them"},
		"health elsewhere":     {clusterHead + "etcd: {external: {endpoints: [https://a:2379], httpEndpoints: [https://b:2379]}}", "ClusterConfiguration.etcd.external.httpEndpoints: kubewright does not honour this: leave it out, as it is the same as endpoints"},
		"certificates":         {clusterHead + "certificatesDir: /pki", "ClusterConfiguration.certificatesDir: kubewright does not honour this: certificates are kept in /etc/kubernetes/pki: leave it out"},
		"image of etcd":        {clusterHead + "etcd: {local: {imageRepository: a}}", "ClusterConfiguration.etcd.local.imageRepository: kubewright does not honour this: all images come from one repository: leave it out, or write imageRepository"},
		"image of CoreDNS":     {clusterHead + "imageRepository: a\ndns: {imageRepository: registry.k8s.io/coredns}", "ClusterConfiguration.dns.imageRepository: kubewright does not honour this: all images come from one repository: leave it out, or write imageRepository"},
		"pull":                 {initHead + "nodeRegistration: {imagePullPolicy: Always}", "InitConfiguration.nodeRegistration.imagePullPolicy: kubewright does not honour this: images come from the bundle, and the kubelet pulls what is missing: leave it out"},
		"pull of a wrong type": {initHead + "nodeRegistration: {imagePullSerial: 5}", "InitConfiguration.nodeRegistration.imagePullSerial: kubewright does not honour this: images come from the bundle, and the kubelet pulls what is missing: leave it out"},
		"timeouts":             {initHead + "timeouts: {upgradeManifests: 6m}", "InitConfiguration.timeouts.upgradeManifests: kubewright does not honour this: only an upgrade waits so long: leave it out"},
		"CA":                   {joinHead + byToken + "caCertPath: /ca.crt", "JoinConfiguration.caCertPath: kubewright does not honour this: the cluster's CA is kept in /etc/kubernetes/pki/ca.crt: leave it out"},
		"socket of a kubelet":  {kubeletHead + "containerRuntimeEndpoint: unix:///x", "KubeletConfiguration.containerRuntimeEndpoint: kubewright does not honour this: write nodeRegistration.criSocket into InitConfiguration"},
		"kubelet of a join":    {joinHead + byToken + "---\n" + kubeletHead, "KubeletConfiguration: a joining host takes that of the cluster: leave it out, or write a patch for this host into patches.directory"},

		"token's form":        {initHead + "bootstrapTokens: [{token: abc}]", "InitConfiguration.bootstrapTokens[0].token: a bootstrap token has 6 characters, a dot and 16 characters, all of a-z and 0-9"},
		"token as a number":   {initHead + "bootstrapTokens: [{token: 123456.1234567890123456}]", "InitConfiguration.bootstrapTokens[0].token: is not a string: write it in quotes"},
		"key as a number":     {initHead + "certificateKey: 1234", "InitConfiguration.certificateKey: is not a string: write it in quotes"},
		"TLS token, a number": {joinHead + "discovery: {file: {kubeConfigPath: a}, tlsBootstrapToken: 1234}", "JoinConfiguration.discovery.tlsBootstrapToken: is not a string: write it in quotes"},
		"ttl and expires":     {initHead + "bootstrapTokens: [{ttl: 1h, expires: \"2030-01-01T00:00:00Z\"}]", "InitConfiguration.bootstrapTokens[0]: ttl and expires: write one of them"},
		"ttl":                 {initHead + "bootstrapTokens: [{ttl: -1h}]", "InitConfiguration.bootstrapTokens[0].ttl: -1h0m0s is less than nothing: write 24h, say, or 0s for a token that never expires"},
		"usage":               {initHead + "bootstrapTokens: [{usages: [sign]}]", `InitConfiguration.bootstrapTokens[0].usages[0]: "sign": write signing or authentication`},
		"group":               {initHead + "bootstrapTokens: [{groups: [a]}]", `InitConfiguration.bootstrapTokens[0].groups[0]: "a": the API server takes only groups that begin with system:bootstrappers:`},
		"address":             {initHead + "localAPIEndpoint: {advertiseAddress: a, bindPort: 70000}", "2 problems:\n  - InitConfiguration.localAPIEndpoint.advertiseAddress: \"a\" is not an IP address\n  - InitConfiguration.localAPIEndpoint.bindPort: 70000 is not a port: write a number from 1 to 65535"},

		"no discovery":     {joinHead, "JoinConfiguration.discovery: write bootstrapToken, or file"},
		"two discoveries":  {joinHead + "discovery: {file: {kubeConfigPath: a}, bootstrapToken: {token: a}}", "JoinConfiguration.discovery: bootstrapToken and file: write one of them"},
		"file":             {joinHead + "discovery: {file: {}}", "JoinConfiguration.discovery.file.kubeConfigPath: write the path or the https URL of a kubeconfig that names the cluster"},
		"TLS token's form": {joinHead + "discovery: {file: {kubeConfigPath: a}, tlsBootstrapToken: a}", "JoinConfiguration.discovery.tlsBootstrapToken: a bootstrap token has 6 characters, a dot and 16 characters, all of a-z and 0-9"},
		"by token": {joinHead + "discovery: {bootstrapToken: {}}", `3 problems:
  - JoinConfiguration.discovery.bootstrapToken.apiServerEndpoint: "" is neither HOST nor HOST:PORT: write a DNS name or an IP address, and a port if it is not 6443
  - JoinConfiguration.discovery.bootstrapToken.caCertHashes: write sha256:HEX, by which the cluster is known; print it on a control plane with ` + "`kubewright token create --print-join-command`" + `
  - JoinConfiguration.discovery.bootstrapToken.token: a bootstrap token has 6 characters, a dot and 16 characters, all of a-z and 0-9`},

		"several documents at once": {initHead + "dryrun: true\n---\n" + clusterHead + "certificatesDir: /pki\nclustername: a\n", `3 problems:
  - ClusterConfiguration.certificatesDir: kubewright does not honour this: certificates are kept in /etc/kubernetes/pki: leave it out
  - ClusterConfiguration.clustername: unknown field: write one of apiServer, apiVersion, caCertificateValidityPeriod, certificateValidityPeriod, certificatesDir, clusterName, controlPlaneEndpoint, controllerManager, dns, encryptionAlgorithm, etcd, featureGates, imageRepository, kind, kubernetesVersion, networking, proxy, scheduler
  - InitConfiguration.dryrun: unknown field: write one of apiVersion, bootstrapTokens, certificateKey, dryRun, kind, localAPIEndpoint, nodeRegistration, patches, skipPhases, timeouts`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(tt.file))
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Error(diff)
			}
			for _, secret := range []string{"1234567890", "1234"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("it tells %s", secret)
				}
			}
		})
	}
}

// What kubeadm itself prints as its defaults asks for nothing that we don't do.
func TestKubeadmsDefaultsAreTaken(t *testing.T) {
	d, err := Parse([]byte(initHead + `bootstrapTokens:
- {groups: [system:bootstrappers:kubeadm:default-node-token], token: abcdef.0123456789abcdef, ttl: 24h0m0s, usages: [signing, authentication]}
localAPIEndpoint: {advertiseAddress: 0.0.0.0, bindPort: 6443}
nodeRegistration: {criSocket: unix:///run/containerd/containerd.sock, imagePullPolicy: IfNotPresent, imagePullSerial: true, name: Node, taints: null}
timeouts: {controlPlaneComponentHealthCheck: 4m0s, discovery: 5m0s, etcdAPICall: 2m0s, kubeletHealthCheck: 4m0s, kubernetesAPICall: 1m0s, tlsBootstrap: 5m0s, upgradeManifests: 5m0s}
---
` + clusterHead + `apiServer: {}
caCertificateValidityPeriod: 87600h0m0s
certificateValidityPeriod: 8760h0m0s
certificatesDir: /etc/kubernetes/pki
clusterName: kubernetes
controllerManager: {}
dns: {}
encryptionAlgorithm: RSA-2048
etcd: {local: {dataDir: /var/lib/etcd}}
featureGates: {}
imageRepository: registry.k8s.io
kubernetesVersion: 1.36.0
networking: {dnsDomain: cluster.local, serviceSubnet: 10.96.0.0/12}
proxy: {}
scheduler: {}
`))
	if err != nil {
		t.Fatal(err)
	}
	if a := d.Init.Node.Address; a != "" {
		t.Errorf("address %s", a)
	}
	if d.Init.Node.Name != "node" || d.Init.Node.Taints != nil {
		t.Errorf("node %+v", d.Init.Node)
	}
	d.Cluster.Default(config.Versions{})
	if err := d.Cluster.Validate(); err != nil {
		t.Error(err)
	}
	if n := d.Cluster.Spec.Network; n.CNI.Name != "none" || n.PodCIDR != "" {
		t.Errorf("without podSubnet: %+v", n)
	}
}

func TestDocumentsOfInit(t *testing.T) {
	d, err := Parse([]byte(initHead + `bootstrapTokens: [{token: abcdef.0123456789abcdef, ttl: 0s}, {description: other, expires: "2030-01-01T00:00:00Z", usages: [signing]}]
certificateKey: "00"
dryRun: true
localAPIEndpoint: {advertiseAddress: 10.0.0.1, bindPort: 443}
nodeRegistration: {name: cp, criSocket: /run/x.sock, taints: [], kubeletExtraArgs: [{name: v, value: "4"}], ignorePreflightErrors: [Swap]}
patches: {directory: /patches}
skipPhases: [addon/kube-proxy]
timeouts: {discovery: 1m}
---
` + clusterHead + `clusterName: prod
controlPlaneEndpoint: api.example.org
kubernetesVersion: v1.36.1
networking: {podSubnet: 10.1.0.0/16, serviceSubnet: 10.2.0.0/16, dnsDomain: a.b}
apiServer: {certSANs: [x], extraArgs: [{name: v, value: "4"}], extraEnvs: [{name: A, value: b}], extraVolumes: [{name: a, hostPath: /a, mountPath: /b, readOnly: true}]}
etcd: {local: {imageTag: "3", imageRepository: r, dataDir: /d, serverCertSANs: [a], peerCertSANs: [b]}}
dns: {imageTag: v1, imageRepository: r}
imageRepository: r
encryptionAlgorithm: ECDSA-P384
certificateValidityPeriod: 24h
---
` + kubeletHead + `maxPods: 5
rotateCertificates: true
---
` + proxyHead + "mode: nftables\noomScoreAdj: 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	arg := []config.Arg{{Name: "v", Value: "4"}}
	want := &Run{
		Node:       config.Node{Name: "cp", Address: "10.0.0.1", Taints: []corev1.Taint{}, KubeletArgs: arg},
		SkipPhases: []string{"addon/kube-proxy"}, IgnorePreflightErrors: []string{"Swap"}, DryRun: true, CertificateKey: "00",
		Tokens: []Token{
			{Text: "abcdef.0123456789abcdef", Usages: []string{"signing", "authentication"}, Groups: []string{"system:bootstrappers:kubeadm:default-node-token"}},
			{Description: "other", TTL: 24 * time.Hour, Expires: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Usages: []string{"signing"}, Groups: []string{"system:bootstrappers:kubeadm:default-node-token"}},
		},
	}
	if diff := cmp.Diff(want, d.Init); diff != "" {
		t.Error(diff)
	}
	cluster, err := d.Cluster.Print()
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.Parse([]byte(strings.Replace(string(cluster), `apiVersion: ""`+"\n"+`kind: ""`, "apiVersion: kubewright.dev/v1alpha1\nkind: Cluster", 1)))
	if err != nil {
		t.Fatal(err)
	}
	again.APIVersion, again.Kind = "", ""
	s := config.Spec{
		KubernetesVersion: "v1.36.1", ImageRepository: "r",
		ControlPlane: config.ControlPlane{Endpoint: "api.example.org", CertSANs: []string{"x"}, BindPort: 443},
		APIServer: config.Component{ExtraArgs: arg, ExtraEnvs: []corev1.EnvVar{{Name: "A", Value: "b"}},
			ExtraVolumes: []config.HostPath{{Name: "a", HostPath: "/a", MountPath: "/b", ReadOnly: true}}},
		Etcd:      config.Etcd{ImageTag: "3", DataDir: "/d", ServerCertSANs: []string{"a"}, PeerCertSANs: []string{"b"}},
		Network:   config.Network{PodCIDR: "10.1.0.0/16", ServiceCIDR: "10.2.0.0/16", DNSDomain: "a.b", CNI: config.CNI{Name: "flannel"}},
		KubeProxy: config.KubeProxy{Mode: "nftables", Config: map[string]any{"oomScoreAdj": int64(0)}},
		DNS:       config.DNS{ImageTag: "v1"},
		PKI:       config.PKI{Algorithm: "ECDSA-P384", Validity: config.Duration{Duration: 24 * time.Hour}},
		Runtime:   config.Runtime{Socket: "/run/x.sock"},
		Kubelet:   map[string]any{"maxPods": int64(5)},
		Patches:   "/patches",
		Timeouts:  config.Timeouts{Discovery: config.Duration{Duration: time.Minute}},
	}
	if diff := cmp.Diff(&config.Cluster{Metadata: config.Metadata{Name: "prod"}, Spec: s}, again); diff != "" {
		t.Error(diff)
	}
	unkept := []string{
		"InitConfiguration.bootstrapTokens: pass --token-file and --token-ttl to init, or make tokens with `kubewright token create`",
		"InitConfiguration.certificateKey: pass --certificate-key to init",
		"InitConfiguration.dryRun: pass --dry-run to init",
		"InitConfiguration.nodeRegistration.ignorePreflightErrors: pass --ignore-preflight-errors to init",
		"InitConfiguration.nodeRegistration.name: pass --node-name to init, unless it is the host's name",
		"InitConfiguration.skipPhases: pass --skip-phases to init",
	}
	if diff := cmp.Diff(unkept, d.Unkept); diff != "" {
		t.Error(diff)
	}
	if d.Join != nil {
		t.Errorf("a join: %+v", d.Join)
	}
}

func TestADisabledProxyStaysDisabled(t *testing.T) {
	d, err := Parse([]byte(clusterHead + "proxy: {disabled: true}\n---\n" + proxyHead + "mode: iptables\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d.Cluster.Spec.KubeProxy.Mode != "none" {
		t.Errorf("mode %s", d.Cluster.Spec.KubeProxy.Mode)
	}
}

func TestDocumentsOfJoin(t *testing.T) {
	const token, other = "abcdef.0123456789abcdef", "aaaaaa.0123456789abcdef"
	for name, tt := range map[string]struct {
		file string
		want Run
	}{
		"by token": {"discovery: {bootstrapToken: {apiServerEndpoint: a, token: " + token + ", caCertHashes: [sha256:00]}, tlsBootstrapToken: " + other + "}",
			Run{Discovery: Discovery{Endpoint: "a", Token: token, Pins: []string{"sha256:00"}, TLSToken: other}}},
		"by file":              {"discovery: {file: {kubeConfigPath: file:///d}}", Run{Discovery: Discovery{File: "/d"}}},
		"by file, and a token": {"discovery: {file: {kubeConfigPath: https://a/d}, tlsBootstrapToken: " + other + "}", Run{Discovery: Discovery{File: "https://a/d", TLSToken: other}}},
		"with everything": {byToken + `caCertPath: /etc/kubernetes/pki/ca.crt
controlPlane: {certificateKey: "00", localAPIEndpoint: {advertiseAddress: 10.0.0.1, bindPort: 443}}
dryRun: true
nodeRegistration: {name: w, criSocket: /x, taints: [{key: a, effect: NoSchedule}], kubeletExtraArgs: [{name: v, value: "4"}], ignorePreflightErrors: [Swap]}
patches: {directory: /p}
skipPhases: [preflight]
timeouts: {tlsBootstrap: 1m}
`, Run{
			Node:       config.Node{Name: "w", Address: "10.0.0.1", Taints: []corev1.Taint{{Key: "a", Effect: "NoSchedule"}}, KubeletArgs: []config.Arg{{Name: "v", Value: "4"}}},
			SkipPhases: []string{"preflight"}, IgnorePreflightErrors: []string{"Swap"}, DryRun: true, CertificateKey: "00",
			Discovery:    Discovery{Endpoint: "a:6443", Token: token, SkipCA: true},
			ControlPlane: true, BindPort: 443, Socket: "/x", Patches: "/p", Timeouts: config.Timeouts{TLSBootstrap: config.Duration{Duration: time.Minute}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse([]byte(joinHead + tt.file))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tt.want, d.Join); diff != "" {
				t.Error(diff)
			}
			if d.Cluster != nil || d.Init != nil {
				t.Error("it describes a cluster")
			}
		})
	}
}

// As kind writes it: all documents of all commands in one file.
func TestOneFileForInitAndJoin(t *testing.T) {
	d, err := Parse([]byte(strings.Join([]string{clusterHead, initHead, joinHead + byToken, kubeletHead, proxyHead}, "---\n")))
	if err != nil {
		t.Fatal(err)
	}
	if d.Cluster == nil || d.Init == nil || d.Join == nil || len(d.Unkept) != 1 {
		t.Errorf("%+v", d)
	}
}

func TestIsKnowsWhoseAFileIs(t *testing.T) {
	for file, want := range map[string]bool{
		clusterHead: true, kubeletHead: true, proxyHead: true, "# none\n---\n" + joinHead: true,
		strings.Replace(initHead, "v1beta4", "v1beta2", 1):     true,
		"apiVersion: kubewright.dev/v1alpha1\nkind: Cluster\n": false, "": false, "[]": false, "a: [": false,
	} {
		if Is([]byte(file)) != want {
			t.Errorf("%q: %t", file, !want)
		}
	}
}

func TestErrorsOfTheClusterNameKubeadmsFields(t *testing.T) {
	d, err := Parse([]byte(clusterHead + "networking: {podSubnet: 10.96.0.0/16}\nencryptionAlgorithm: DSA\n---\n" + proxyHead + "mode: ebpf\n"))
	if err != nil {
		t.Fatal(err)
	}
	d.Cluster.Default(config.Versions{})
	want := `3 problems:
  - KubeProxyConfiguration.mode: "ebpf" is unknown: write one of iptables, nftables, ipvs, none
  - ClusterConfiguration.networking: podSubnet 10.96.0.0/16 and serviceSubnet 10.96.0.0/12 overlap: write ranges that have no address in common
  - ClusterConfiguration.encryptionAlgorithm: "DSA" is unknown: write one of ECDSA-P256, ECDSA-P384, RSA-2048, RSA-3072, RSA-4096`
	if diff := cmp.Diff(want, In(d.Cluster.Validate())); diff != "" {
		t.Error(diff)
	}
}

func TestClusterConfigurationIsReadAsItIsWritten(t *testing.T) {
	c := &config.Cluster{}
	c.Metadata.Name = "prod"
	c.Spec.Network.CNI.Name = "none"
	c.Spec.Network.PodCIDR, c.Spec.Network.ServiceCIDR = "10.1.0.0/16,fd00:1::/56", "10.96.0.0/12,fd00:2::/112"
	c.Spec.Etcd.ImageTag = "3.6.0-0"
	c.Spec.ControlPlane.CertSANs = []string{"a"}
	c.Spec.APIServer.ExtraArgs = []config.Arg{{Name: "v", Value: "4"}}
	c.Default(config.Versions{})
	b, err := ClusterConfiguration(c)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Parse(b)
	if err != nil {
		t.Fatalf("%v:\n%s", err, b)
	}
	live, err := ReadClusterConfiguration(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]*config.Cluster{"a document": d.Cluster, "of a cluster": live} {
		got.Spec.Network.CNI.Name = "none"
		got.Default(config.Versions{})
		if diff := cmp.Diff(c, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
