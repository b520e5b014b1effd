package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCredentialsAreThoseOfDockersConfig(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir)
	write := func(name, content string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	// auth is robot:pa:ss
	write("config.json", `{"auths": {"harbor.example.com": {"auth": "cm9ib3Q6cGE6c3M="}, "192.0.2.1:5000": {"username": "u", "password": "p"}, "cloud.example.com": {"identitytoken": "t0ken"}},
		"credHelpers": {"helped.example.com": "test", "gone.example.com": "gone"}}`, 0o600)
	write("docker-credential-test", "#!/bin/sh\necho '{\"Username\":\"helped\",\"Secret\":\"secret\"}'\n", 0o700)
	for registry, want := range map[string]string{
		"harbor.example.com": "robot:pa:ss", "192.0.2.1:5000": "u:p", "helped.example.com": "helped:secret",
		"harbor.example.com:443": ":", "other.example.com": ":", "[fd00::1]:5000": ":",
	} {
		user, password, err := credentials(registry)
		if got := user + ":" + password; err != nil || got != want {
			t.Errorf("%s: got %s, %v, not %s", registry, got, err, want)
		}
	}
	for registry, want := range map[string]string{"cloud.example.com": "identity token", "gone.example.com": "read Docker's config"} {
		if _, _, err := credentials(registry); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "t0ken") {
			t.Errorf("%s: %v", registry, err)
		}
	}
}

func TestCredentialsAreThoseOfPodmanWhereDockerHasNoConfig(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("DOCKER_CONFIG", "")
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(dir, "auth.json"))
	if err := os.WriteFile(filepath.Join(dir, "auth.json"), []byte(`{"auths": {"a.example.com": {"auth": "dTpw"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if user, password, err := credentials("a.example.com"); user != "u" || password != "p" || err != nil {
		t.Errorf("got %s, %s, %v", user, password, err)
	}
}
