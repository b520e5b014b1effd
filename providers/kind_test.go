package providers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"github.com/kubewright/kubewright/config"
)

// docker is a stand-in for the engine: it keeps its containers as files, and has no machines. The script runs
// before it does anything, with the arguments of docker.
const docker = `#!/bin/sh
dir=DIR
echo "$*" >>$dir/log
SCRIPT
case $1 in
info) echo '{"CgroupVersion":"2","MemoryLimit":true,"PidsLimit":true,"CPUShares":true}' ;;
ps) ls $dir/containers ;;
inspect)
    case "$*" in *--type=image*) [ -e $dir/image ]; exit ;; esac
    case "$*" in
    *'index .Config.Labels "io.x-k8s.kind.role"'*) for n; do :; done; cat $dir/containers/$n; exit ;;
    *IPAddress*) echo 192.0.2.7,; exit ;;
    esac
    shift; sep='['
    for n; do
        [ -e $dir/containers/$n ] || { echo "Error: No such object: $n" >&2; exit 1; }
        printf '%s{"Name":"/%s","State":{"Running":true},"Config":{"Labels":{"io.x-k8s.kind.cluster":"ci","io.x-k8s.kind.role":"%s"}},"NetworkSettings":{"Ports":{"6443/tcp":[{"HostIp":"127.0.0.1","HostPort":"40001"}]},"Networks":{"kind":{"IPAddress":"192.0.2.7"}}}}' "$sep" "$n" "$(cat $dir/containers/$n)"
        sep=,
    done
    echo ']' ;;
run) n=$3; shift 3; case "$*" in *role=control-plane*) echo control-plane ;; *) echo worker ;; esac >$dir/containers/$n ;;
logs) echo 'Reached target Multi-User System.' ;;
exec) case "$*" in *foreign*) [ ! -e $dir/foreign ] || echo foreign ;; *"cat /kind/version"*) echo v1.36.3 ;; *) cat >/dev/null ;; esac ;;
cp) case "$2" in *:/kind/lost) cp $dir/lost "$3"; exit ;; esac; case $3 in *:*) cp "$2" $dir/mark ;; *) cp $dir/mark "$3" ;; esac ;;
network) echo id ;;
rm) for n; do rm -f $dir/containers/$n; done ;;
pull) echo "Error response from daemon: manifest for $3 not found" >&2; exit 1 ;;
esac
`

// stand puts the stand-in into PATH, and returns its folder. There is an image.
func stand(t *testing.T, script string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kubewright-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // commands that nobody waits for write into it for a moment yet
		for range 100 {
			if os.RemoveAll(dir) == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	text := strings.NewReplacer("DIR", dir, "SCRIPT", script).Replace(docker)
	for path, b := range map[string]string{"docker": text, "image": ""} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(b), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "containers"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	t.Setenv("KIND_EXPERIMENTAL_PROVIDER", "docker")
	t.Setenv("KUBECONFIG", filepath.Join(dir, "kubeconfig"))
	return dir
}

func kindOf(t *testing.T) *Kind {
	t.Helper()
	k, err := NewKind(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// create is what up does with a cluster, but for its machines.
func create(t *testing.T, k *Kind, c *config.Cluster, expires time.Time) (made bool, err error) {
	t.Helper()
	made, _, err = k.Create(t.Context(), c, expires)
	if k.unsigned != nil {
		err = k.sign(t.Context(), c, *k.unsigned)
		k.unsigned = nil
	}
	if err == nil {
		err = k.Remember(t.Context(), c)
	}
	return made, err
}

// document is one of a control plane and two workers.
func document(t *testing.T, change func(*config.Cluster)) *config.Cluster {
	t.Helper()
	c := &config.Cluster{APIVersion: config.APIVersion, Kind: config.Kind, Metadata: config.Metadata{Name: "ci"}}
	c.Spec.Provider = config.Provider{Name: "kind", Kind: config.KindProvider{Workers: 2, Image: "my/node:1"}}
	if change != nil {
		change(c)
	}
	if err := errors.Join(KindHosts(c), KindImages(c)); err != nil {
		t.Fatal(err)
	}
	InContainers(c)
	return c
}

func containers(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "containers"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func wants(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error that says %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
}

const three = "ci-control-plane ci-worker ci-worker2"

func TestContainersAreMadeFoundAndRemoved(t *testing.T) {
	dir := stand(t, "")
	k, c := kindOf(t), document(t, nil)
	made, err := create(t, k, c, time.Time{})
	if err != nil || !made || containers(t, dir) != three {
		t.Fatalf("%v, %v, %s", made, err, containers(t, dir))
	}
	if made, err := create(t, k, c, time.Time{}); err != nil || made {
		t.Errorf("a second time: %v, %v", made, err)
	}
	stored, err := k.Document(t.Context(), "ci")
	if err != nil || len(stored.Spec.Hosts) != 3 || !stored.Spec.Hosts[0].Has(config.ControlPlaneRole) {
		t.Errorf("%+v, %v", stored, err)
	}
	if n, err := k.Delete(t.Context(), "ci", ""); err != nil || n != 3 || containers(t, dir) != "" {
		t.Errorf("%d, %v, %s", n, err, containers(t, dir))
	}
	_, err = k.Document(t.Context(), "ci")
	wants(t, err, "there is no cluster ci", "up --provider kind --name ci")
}

func TestTheEngineIsAskedForAnImageOnce(t *testing.T) {
	dir := stand(t, "")
	if _, err := create(t, kindOf(t), document(t, nil), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if log := asked(t, dir); strings.Count(log, "inspect --type=image --format {{.Id}} my/node:1\n") != 1 {
		t.Error(log)
	}
}

func TestMachinesAreAskedForByTheirNames(t *testing.T) {
	dir := stand(t, `[ "$1" != exec ] || exit 1`)
	k, c := kindOf(t), document(t, nil)
	k.Impatient = true
	if _, _, err := k.Create(t.Context(), c, time.Time{}); err != nil {
		t.Fatal(err)
	}
	before := len(asked(t, dir))
	lacks := func(c *config.Cluster, want string) {
		t.Helper()
		machines, err := k.Machines(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range machines {
			if m.Err == nil {
				m.Host.(io.Closer).Close()
				continue
			}
			wants(t, m.Err, m.Node.Name+": there is no such container")
			got = append(got, m.Node.Name)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q are missing, want %q", s, want)
		}
	}
	lacks(c, "")
	if log := asked(t, dir)[before:]; strings.Contains(log, "ps ") || k.Server != "127.0.0.1:40001" {
		t.Errorf("the API server is at %q; the engine was asked\n%s", k.Server, log)
	}
	if _, err := k.Document(t.Context(), "ci"); err != nil {
		t.Errorf("it has no mark: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "containers", "ci-worker")); err != nil {
		t.Fatal(err)
	}
	lacks(c, "ci-worker")
	c.Metadata.Name = "another" // whose names are somebody else's
	lacks(c, three)
}

func TestMachinesWithoutTheirMarkAreNone(t *testing.T) {
	stand(t, `case $1 in exec) exit 1 ;; cp) echo no room >&2; exit 1 ;; esac`)
	k, c := kindOf(t), document(t, nil)
	k.Impatient = true
	_, finish, err := k.Create(t.Context(), c, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	machines, err := k.Machines(t.Context(), c)
	if wants(t, err, "no room"); machines != nil {
		t.Errorf("%+v", machines)
	}
	finish() // what runs on writes into the test's folder
}

func asked(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestContainersAreNotChanged(t *testing.T) {
	dir := stand(t, "")
	k := kindOf(t)
	var said []string
	k.Say = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	if _, err := create(t, k, document(t, nil), time.Time{}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*config.KindProvider){
		"nodes.ci-worker.role, nodes.ci-worker2.role": func(p *config.KindProvider) { p.ControlPlanes, p.Workers = 3, 0 },
		"nodes.ci-worker.extraPortMappings": func(p *config.KindProvider) {
			p.Nodes, p.Workers = []config.KindNode{{Role: "control-plane"}, {Role: "worker", ExtraPortMappings: []v1alpha4.PortMapping{{ContainerPort: 80}}}, {Role: "worker"}}, 0
		},
		"provider.apiServerPort": func(p *config.KindProvider) { p.APIServerPort = 6443 },
	} {
		_, err := create(t, k, document(t, func(c *config.Cluster) { change(&c.Spec.Provider.Kind) }), time.Time{})
		if err == nil || !strings.Contains(err.Error(), "settings of its containers ("+name+"): containers are not changed") || containers(t, dir) != three {
			t.Errorf("%s: %v; there are %s", name, err, containers(t, dir))
		}
	}
	same := func(c *config.Cluster) { // in other words
		c.Spec.Provider.Kind = config.KindProvider{Nodes: []config.KindNode{{Role: "worker", Labels: map[string]string{"a": "b"}}, {Role: "control-plane"}, {Role: "worker"}}, Image: "my/node:2"}
	}
	if _, err := create(t, k, document(t, same), time.Time{}); err != nil || len(said) != 3 || !strings.Contains(said[1], "ci-control-plane stays of the image my/node:1") {
		t.Errorf("%v; it said %q", err, said)
	}
	if d, err := k.Document(t.Context(), "ci"); err != nil || d.Spec.Provider.Kind.Nodes[0].Image != "my/node:1" || d.Spec.Hosts[0].Labels["a"] != "b" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestADocumentThatIsRefusedIsNotRemembered(t *testing.T) {
	stand(t, "")
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	if _, err := create(t, kindOf(t), document(t, nil), time.Time{}); err != nil {
		t.Fatal(err)
	}
	k, other := kindOf(t), document(t, func(c *config.Cluster) { c.Spec.Network.CNI.Name = "none" })
	remembers := func(cni string, expired int) {
		t.Helper()
		d, err := k.Document(t.Context(), "ci")
		names, expErr := k.Expired(t.Context(), now.Add(time.Second))
		if err := errors.Join(err, expErr); err != nil || d.Spec.Network.CNI.Name != cni || len(names) != expired {
			t.Errorf("%+v, %v are expired, %v", d, names, err)
		}
	}
	if _, _, err := k.Create(t.Context(), other, now); err != nil {
		t.Fatal(err)
	}
	remembers("", 0)
	other.Default(config.Versions{Kubernetes: "v1.36.3"}) // as up completes what it was given
	if err := k.Remember(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	remembers("none", 1)
	if d, err := k.Document(t.Context(), "ci"); err != nil || d.Spec.KubernetesVersion != "" {
		t.Errorf("%+v, %v: it has more than was written", d, err)
	}
}

// Else a cluster would be changed to one that nobody asked for.
func TestADocumentThatCannotBeReadIsNotTakenForNone(t *testing.T) {
	dir := stand(t, `case $1$dir in cp*) [ ! -e $dir/hangs ] || { echo the engine hangs >&2; exit 1; } ;; esac`)
	k := kindOf(t)
	if c, err := k.Remembered(t.Context(), "ci"); c != nil || err != nil {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := create(t, k, document(t, nil), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if c, err := k.Remembered(t.Context(), "ci"); c == nil || err != nil {
		t.Errorf("%+v, %v", c, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hangs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := k.Remembered(t.Context(), "ci")
	wants(t, err, "the cluster ci is there, and what it was made of can't be read: docker cp: the engine hangs: run this again, or give its document with -f")
	if err := errors.Join(os.Remove(filepath.Join(dir, "hangs")), os.Remove(filepath.Join(dir, "mark"))); err != nil {
		t.Fatal(err)
	}
	if c, err := k.Remembered(t.Context(), "ci"); c != nil || err != nil {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestAClusterWhoseControlPlanesDoNotComeBackSaysSo(t *testing.T) {
	dir := stand(t, "")
	k, c := kindOf(t), document(t, func(c *config.Cluster) { c.Spec.Provider.Kind.ControlPlanes = 3; c.Spec.Provider.Kind.Workers = 0 })
	for range 2 {
		if _, err := create(t, k, c, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lost"), []byte("addresses have changed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	made, err := create(t, k, c, time.Time{})
	wants(t, err, "ci-control-plane: addresses have changed: ", "kubewright down --provider kind --name ci")
	if made || containers(t, dir) != three {
		t.Errorf("made: %v; there are %s", made, containers(t, dir))
	}
}

func TestClustersEndWhenTheirTimeIsOver(t *testing.T) {
	stand(t, "")
	k, c := kindOf(t), document(t, nil)
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for _, expires := range []time.Time{now, {}} { // a second run does not take it back
		if _, err := create(t, k, c, expires); err != nil {
			t.Fatal(err)
		}
	}
	if got := k.Expires(t.Context(), c); !got.Equal(now) {
		t.Errorf("it says %s", got)
	}
	if names, err := k.Expired(t.Context(), now.Add(-time.Second)); err != nil || names != nil {
		t.Errorf("before: %v, %v", names, err)
	}
	if names, err := k.Expired(t.Context(), now.Add(time.Second)); err != nil || len(names) != 1 || names[0] != "ci" {
		t.Errorf("after: %v, %v", names, err)
	}
}

func TestContainersThatWereThereAreLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		have   string
		change func(*config.Cluster)
		wants  string
	}{
		"others": {three, func(c *config.Cluster) { c.Spec.Provider.Kind.Workers = 1 }, "the cluster ci is there, of ci-control-plane, ci-worker, ci-worker2, and is to be of ci-control-plane, ci-worker: "},
		"kind's": {three, nil, "the cluster ci is there, and was made by kind, not by kubewright: "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := stand(t, "")
			for _, file := range append(strings.Fields(c.have), "../foreign") {
				if err := os.WriteFile(filepath.Join(dir, "containers", file), []byte("control-plane"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			made, err := create(t, kindOf(t), document(t, c.change), time.Time{})
			wants(t, err, c.wants, "--name", "kubewright down --provider kind --name ci")
			if made || containers(t, dir) != c.have {
				t.Errorf("made: %v; there are %s", made, containers(t, dir))
			}
		})
	}
}

func TestWhatTheEngineSaysHasANextStep(t *testing.T) {
	fails := func(command, says string) string {
		return `[ "$1" != ` + command + ` ] || { cat >&2 <<'END'
` + says + `
END
exit 125; }`
	}
	for name, c := range map[string]struct {
		script string
		wants  []string
	}{
		"no image":          {`rm -f $dir/image`, []string{"the image my/node:1 is not here, and could not be pulled: docker pull: ", "manifest for my/node:1 not found", "build node-image"}},
		"a port is taken":   {fails("run", strings.Repeat("0f", 32)+"\ndocker: Bind for 127.0.0.1:6443 failed: port is already allocated\n\nRun 'docker run --help' for more"), []string{"kind: docker run: docker: Bind for 127.0.0.1:6443 failed: port is already allocated: another container has the port: choose another one"}},
		"no space":          {fails("run", "mkdir /var/lib/docker: no space left on device"), []string{"no space left on device", "docker system prune"}},
		"no systemd":        {`[ "$1" != logs ] || exit 0`, []string{"could not find a log line", "systemd does not come up in this image"}},
		"not one of kind's": {fails("cp", "Error response from daemon: Could not find the file /kind in container ci-control-plane"), []string{"Could not find the file /kind", "not one of kind's: build one with `kubewright build node-image`"}},
	} {
		t.Run(name, func(t *testing.T) {
			stand(t, c.script)
			k := kindOf(t)
			k.settling = 0
			_, err := create(t, k, document(t, func(c *config.Cluster) { c.Spec.Provider.Kind.Workers = 0 }), time.Time{})
			wants(t, err, c.wants...)
			if strings.Contains(err.Error(), ".go:") || strings.Contains(err.Error(), "--privileged") {
				t.Errorf("a stack, or a whole command: %v", err)
			}
		})
	}
}

func TestAnEngineThatIsNotThere(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		wants  []string
	}{
		"it does not run":   {"echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2; exit 1", []string{"Cannot connect", "sudo systemctl start docker"}},
		"no permission":     {"echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1", []string{"permission denied", "usermod -aG docker"}},
		"another complaint": {"echo 'no such context' >&2; exit 1", []string{"no such context", "DOCKER_HOST"}},
	} {
		t.Run(name, func(t *testing.T) {
			stand(t, c.script)
			_, err := NewKind(t.Context())
			wants(t, err, c.wants...)
		})
	}
	t.Setenv("PATH", t.TempDir())
	t.Setenv("KIND_EXPERIMENTAL_PROVIDER", "")
	_, err := NewKind(t.Context())
	wants(t, err, "none of docker, nerdctl, podman is in PATH", "install")
}

func TestContainersThatCameMeanwhileAreNobodysToRemove(t *testing.T) {
	theirs := `for n in ci-control-plane ci-worker ci-worker2; do echo control-plane >$dir/containers/$n; done`
	for name, script := range map[string]string{
		"while the image comes": `rm -f $dir/image; [ "$1" != pull ] || { touch $dir/foreign; ` + theirs + `; exit 0; }`,
		"while we look":         `[ "$1" != ps ] || [ "$*" = "ps --quiet" ] || [ -e $dir/looked ] || { touch $dir/looked; exit 0; }; [ "$1" != ps ] || { ` + theirs + `; }`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := stand(t, script)
			made, _, err := kindOf(t).Create(t.Context(), document(t, nil), time.Time{})
			wants(t, err, "somebody has made it meanwhile: choose another name with --name")
			if made || containers(t, dir) != three {
				t.Errorf("made: %v; there are %s", made, containers(t, dir))
			}
		})
	}
}

func TestWhatKindHasEndedWithIsNoMatterOfAContext(t *testing.T) {
	dir := stand(t, `[ "$1" != logs ] || read _ <$dir/go`) // kind reads them after the containers run
	mkfifo(t, filepath.Join(dir, "go"))
	ctx, cancel := context.WithCancel(t.Context())
	_, finish, err := kindOf(t).Create(ctx, document(t, func(c *config.Cluster) { c.Spec.Provider.Kind.Workers = 0 }), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	cancel() // as the one of --timeout is, when up has failed
	go os.WriteFile(filepath.Join(dir, "go"), []byte("on\n"), 0o600)
	if err := finish(); err != nil {
		t.Error(err)
	}
}

func TestContainersThatStayAreNotSaidToBeGone(t *testing.T) {
	stand(t, `[ "$1" != rm ] || exit 0`)
	k := kindOf(t)
	if _, _, err := k.Create(t.Context(), document(t, nil), time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, kubeconfig := range []string{"none", ""} {
		_, err := k.Delete(t.Context(), "ci", kubeconfig)
		wants(t, err, three[:16], "are still there", "docker rm --force --volumes")
	}
}

func TestAnEngineThatRemovesNothingIsGivenUp(t *testing.T) {
	for name, script := range map[string]string{
		"it hangs":           `[ "$1" != rm ] || exec sleep 60`,
		"it does so already": `[ "$1" != rm ] || { echo "Error response from daemon: removal of container ci-worker is already in progress" >&2; exit 1; }`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := stand(t, script)
			k := kindOf(t)
			if _, _, err := k.Create(t.Context(), document(t, nil), time.Time{}); err != nil {
				t.Fatal(err)
			}
			var said []string
			k.Say = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
			k.patience = 300 * time.Millisecond
			_, err := k.Delete(t.Context(), "ci", "")
			wants(t, err, "the engine has not removed "+three, "given up after 1.8s", "restart it", "run this again")
			if len(said) == 0 || !strings.HasPrefix(said[0], "the engine has not removed "+three+" yet, since ") {
				t.Errorf("it said %q", said)
			}
			if n := strings.Count(asked(t, dir), "rm --force"); name == "it hangs" && n != 1 {
				t.Errorf("%d removals were begun", n)
			}
		})
	}
}

func TestARemovalThatIsUnderWayIsWaitedFor(t *testing.T) {
	dir := stand(t, `[ "$1" != rm ] || mkdir $dir/tried || { rm $dir/containers/*; exit; } 2>/dev/null; [ "$1" != rm ] || { echo 'removal of container ci-worker is already in progress' >&2; exit 1; }`)
	k := kindOf(t)
	if _, _, err := k.Create(t.Context(), document(t, nil), time.Time{}); err != nil {
		t.Fatal(err)
	}
	k.patience = time.Second
	if n, err := k.Delete(t.Context(), "ci", "none"); err != nil || n != 3 || containers(t, dir) != "" {
		t.Errorf("%d, %v; there are %q", n, err, containers(t, dir))
	}
}

func TestACancelledRunWaitsForWhatKindHasBegun(t *testing.T) {
	dir := stand(t, `[ "$1" != run ] || { echo begun >$dir/fifo; read _ <$dir/go; }`)
	for _, name := range []string{"fifo", "go"} {
		mkfifo(t, filepath.Join(dir, name))
	}
	k, c := kindOf(t), document(t, func(c *config.Cluster) { c.Spec.Provider.Kind.Workers = 0 })
	ctx, cancel := context.WithCancelCause(t.Context())
	told := make(chan struct{})
	k.Say = func(format string, _ ...any) {
		if strings.HasPrefix(format, "waiting") {
			close(told)
		}
	}
	go func() {
		os.ReadFile(filepath.Join(dir, "fifo"))
		cancel(errors.New("interrupted"))
		<-told
		os.WriteFile(filepath.Join(dir, "go"), []byte("on\n"), 0o600)
	}()
	made, _, err := k.Create(ctx, c, time.Time{})
	wants(t, err, "interrupted")
	if !made || containers(t, dir) != "ci-control-plane" {
		t.Errorf("made: %v; there are %q", made, containers(t, dir))
	}
	if _, err := k.Delete(context.WithoutCancel(ctx), "ci", "none"); err != nil || containers(t, dir) != "" {
		t.Errorf("%v; there are %q", err, containers(t, dir))
	}
}

func TestAContainerThatComesAfterTheFirstErrorIsRemovedToo(t *testing.T) {
	dir := stand(t, `case "$1 $3" in
"run ci-control-plane") echo control-plane >$dir/containers/$3; echo 'port is already allocated' >&2; exit 125 ;;
"run ci-worker") read _ <$dir/go ;;
ps*) if [ -e $dir/containers/ci-control-plane ] && mkdir $dir/seen 2>/dev/null; then echo on >$dir/go & fi ;;
esac`)
	mkfifo(t, filepath.Join(dir, "go"))
	k, c := kindOf(t), document(t, func(c *config.Cluster) { c.Spec.Provider.Kind.Workers = 1 })
	k.settling = time.Minute
	made, _, err := k.Create(t.Context(), c, time.Time{})
	wants(t, err, "port is already allocated")
	if !made || containers(t, dir) != "ci-control-plane ci-worker" {
		t.Errorf("made: %v; there are %q", made, containers(t, dir))
	}
	if n, err := k.Delete(t.Context(), "ci", "none"); err != nil || n != 2 || containers(t, dir) != "" {
		t.Errorf("%d, %v; there are %q", n, err, containers(t, dir))
	}
}

func TestNamesAndRolesAreThoseOfKind(t *testing.T) {
	c := document(t, func(c *config.Cluster) {
		c.Spec.Provider.Kind = config.KindProvider{Nodes: []config.KindNode{{Role: "worker"}, {Role: "control-plane"}, {Role: "control-plane"}, {Role: "control-plane"}}}
	})
	var got []string
	for i, h := range c.Spec.Hosts {
		got = append(got, h.Name+" "+string(h.Roles[0])+" "+string(wish(c).Nodes[i].Role))
	}
	if s := strings.Join(got, ", "); s != "ci-worker worker worker, ci-control-plane control-plane control-plane, ci-worker2 control-plane worker, ci-worker3 control-plane worker" {
		t.Error(s)
	}
	if !regexp.MustCompile(`^kindest/node:v1\.36\.4@sha256:[0-9a-f]{64}$`).MatchString(c.Spec.Provider.Kind.Nodes[0].Image) {
		t.Error(c.Spec.Provider.Kind.Nodes[0].Image)
	}
}

// kind writes the address into the kubeconfig as it is, and Linux connects from there to itself.
func TestTheAPIServersCertificateIsForItsAddressHere(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "0.0.0.0", "192.0.2.1", "::"} {
		c := document(t, func(c *config.Cluster) { c.Spec.Provider.Kind.APIServerAddress = address })
		if !slices.Contains(c.Spec.ControlPlane.CertSANs, address) {
			t.Errorf("%s is none of %q", address, c.Spec.ControlPlane.CertSANs)
		}
	}
}

func TestDocumentsThatNoContainersAreMadeOf(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*config.Cluster)
		wants  string
	}{
		"a name": {func(c *config.Cluster) { c.Metadata.Name = "CI_1" }, `the name "CI_1"`},
		"hosts":  {func(c *config.Cluster) { c.Spec.Hosts = []config.Node{{Name: "a"}} }, "spec.hosts"},
		"both":   {func(c *config.Cluster) { c.Spec.Provider.Kind.Nodes = []config.KindNode{{Role: "worker"}} }, "write, or give as flags, one of them"},
		"no control plane": {func(c *config.Cluster) {
			c.Spec.Provider.Kind = config.KindProvider{Nodes: []config.KindNode{{Role: "worker"}}}
		}, "none is a control plane"},
		"a role": {func(c *config.Cluster) {
			c.Spec.Provider.Kind = config.KindProvider{Nodes: []config.KindNode{{Role: "boss"}}}
		}, `nodes[0].role: "boss"`},
		"no image": {func(c *config.Cluster) { c.Spec.Provider.Kind.Image, c.Spec.KubernetesVersion = "", "v1.35.4" }, "Kubernetes v1.35.4: no image of that version is known here"},
	} {
		d := &config.Cluster{Metadata: config.Metadata{Name: "ci"}}
		d.Spec.Provider = config.Provider{Name: "kind", Kind: config.KindProvider{Workers: 1, Image: "my/node:1"}}
		c.change(d)
		if err := errors.Join(KindHosts(d), KindImages(d)); err == nil || !strings.Contains(err.Error(), c.wants) {
			t.Errorf("%s: the error does not say %q: %v", name, c.wants, err)
		}
	}
}

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The word is kind's own: TestKindSizes sees that it is still that one.
func TestKindIsLeftWhenTheContainersAreMade(t *testing.T) {
	for said, want := range map[string]bool{"Ensuring node image": true, "Preparing nodes 📦 📦": false} {
		wentOn := false
		err := within(t.Context(), time.Minute, "make the containers", func() error {
			leaver{}.V(0).Infof(" ✓ %s\n", said)
			wentOn = true
			return nil
		})
		if err != nil || wentOn != want {
			t.Errorf("%s: it went on: %t, %v", said, wentOn, err)
		}
	}
}
