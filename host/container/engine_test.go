package container

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestADockerThatIsPodmanIsPodman(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"docker": `exec podman "$@"`, "podman": `[ "$1" != -v ] || echo podman version 5.4.2; case "$*" in *--format*) exit 125 ;; esac`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	t.Setenv("KIND_EXPERIMENTAL_PROVIDER", "")
	if e, err := Detect(t.Context()); err != nil || e != "podman" {
		t.Errorf("%s, %v", e, err)
	}
}

func TestAConsoleIsHadFromEveryEngine(t *testing.T) {
	e := engine(t, `case "$*" in *"--tail all"*) echo 'Error: invalid argument "all" for "--tail" flag' >&2; exit 125 ;; logs*) echo "$*" ;; esac`) // podman's
	for lines, want := range map[int]string{0: "logs one\n", 10: "logs --tail 10 one\n"} {
		if b, err := e.Console(t.Context(), "one", lines); err != nil || string(b) != want {
			t.Errorf("%d: %q, %v", lines, b, err)
		}
	}
}

func TestAContainerThatGoesWhileOneLooksIsNoError(t *testing.T) {
	e := engine(t, `case $1 in
ps) if [ -e $dir/gone ]; then echo two; else echo one; echo two; fi ;;
inspect) if [ "$2" = one ]; then touch $dir/gone; echo 'Error: No such object: one' >&2; exit 1; fi; echo '[{"Name":"/two","State":{"Running":true}}]' ;;
esac`)
	if all, err := e.Containers(t.Context(), "label"); err != nil || len(all) != 1 || all[0].Name != "two" {
		t.Errorf("%+v, %v", all, err)
	}
	_, err := engine(t, `[ $1 = ps ] && echo one || { echo 'Error: No such object: one' >&2; exit 1; }`).Containers(t.Context(), "label")
	wants(t, err, "No such object: one")
}

func TestWhereAPortIsPublished(t *testing.T) {
	for ports, want := range map[string]string{
		`{"6443/tcp":[{"HostIp":"127.0.0.1","HostPort":"40001"}]}`:                                 "127.0.0.1:40001",
		`{"80/tcp":null,"6443/tcp":[{"HostIp":"::","HostPort":"1"},{"HostIp":"","HostPort":"2"}]}`: "[::]:1",
		`{"6443/tcp":[{"HostIp":"","HostPort":"40001"}]}`:                                          "127.0.0.1:40001", // podman
		`[{"hostPort":40001,"containerPort":6443,"protocol":"tcp","hostIP":""}]`:                   "",                // podman 1
		`{"6443/tcp":null}`: "", `null`: "",
	} {
		e := engine(t, `echo '[{"Name":"/one","NetworkSettings":{"Ports":`+ports+`}}]'`)
		if all, err := e.Inspect(t.Context(), "one"); err != nil || len(all) != 1 || all[0].Published["6443/tcp"] != want {
			t.Errorf("%s: %+v, %v", ports, all, err)
		}
	}
}

func TestAnEngineElsewhereIsReachedThroughTheRelay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // somebody else's, with the address that a container has there
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for host, want := range map[string]bool{"tcp://docker:2376": true, "ssh://build@machine": true, "unix:///run/docker.sock": false, "": false} {
		t.Setenv("DOCKER_HOST", host)
		start := make(chan Dialer, 1)
		start <- dials{errors.New("relayed")}
		_, err := New("docker", "one", []netip.Addr{netip.MustParseAddr("127.0.0.1")}, slow(start)).Dial(t.Context(), "tcp", l.Addr().String())
		if relayed := err != nil && err.Error() == "relayed"; relayed != want {
			t.Errorf("%q: %v", host, err)
		}
	}
}
