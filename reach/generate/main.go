// Command generate builds cmd/reach for every architecture of hosts, and packs it for package reach.
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	for _, machine := range []string{"amd64", "arm64"} {
		if err := generate(machine); err != nil {
			fmt.Fprintf(os.Stderr, "build the program for %s: %v\n", machine, err)
			os.Exit(1)
		}
	}
}

// generate makes the same bytes of the same sources: what embeds them is not built again for nothing.
func generate(machine string) error {
	dir, err := os.MkdirTemp("", "kubewright-reach-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "reach")
	// It is sent to every host: rather small than fast, so nothing is inlined.
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-gcflags=all=-l", "-ldflags", "-s -w -buildid=", "-o", binary, "../cmd/reach")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+machine, "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	from, err := os.Open(binary)
	if err != nil {
		return err
	}
	defer from.Close()
	var packed bytes.Buffer
	to, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	path := filepath.Join("programs", machine+".gz")
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, packed.Bytes()) {
		return nil
	}
	if err := os.WriteFile(path+".new", packed.Bytes(), 0o644); err != nil { // beside: another build may read it
		return err
	}
	return os.Rename(path+".new", path)
}
