package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSoakKind makes and deletes ten clusters of containers in a row, and wants the engine to have afterwards what it had
// before: containers, volumes, networks, loop devices, and about the memory that it took after the second.
func TestSoakKind(t *testing.T) {
	if os.Getenv("KUBEWRIGHT_SOAK") == "" {
		t.Skip("a trial of ten minutes: run it with make soak")
	}
	const clusters = 10
	c := newContainers(t, 30*time.Minute)
	begin := time.Now()
	var before []string
	var memory []int
	for i := range clusters {
		if i == 1 { // the first may make kind's network
			before = append(c.engine(), loops(t)...)
		}
		name := fmt.Sprintf("soak%d", i)
		c.up(name, "--workers", "2")
		if i%5 == 0 {
			c.verified(name)
		}
		if i%2 == 0 {
			c.do("down", "--name", name)
		} else {
			c.kind("delete", "cluster", "--name", name)
		}
		memory = append(memory, c.memory())
	}
	if after := append(c.engine(), loops(t)...); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the engine had %q, and has %q", before, after)
	}
	if b, err := os.ReadFile(c.Kubeconfig()); err != nil || strings.Contains(string(b), "soak") {
		t.Errorf("the kubeconfig still has them: %v %s", err, b)
	}
	if last, second := memory[clusters-1], memory[1]; last > second+second/4+20 {
		t.Errorf("the engine takes more and more memory, in MB: %v", memory)
	}
	t.Logf("soak: %d clusters of three containers made and deleted in %s; the engine takes %v MB after each", clusters, time.Since(begin).Round(time.Second), memory)
}

// memory is what the processes of the engine take, without the containers' own, in megabytes.
func (c *containers) memory() (megabytes int) {
	c.t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, file := range all {
		b, err := os.ReadFile(file)
		argv := string(b)
		if err != nil || !strings.HasPrefix(argv, "dockerd\x00") && !(strings.HasPrefix(argv, "containerd\x00") && strings.Contains(argv, "/run/kubewright-lab/")) {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(file), "status"))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(status)) {
			if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				kilobytes, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(text), " kB"))
				if err != nil {
					c.t.Fatal(err)
				}
				megabytes += kilobytes / 1024
			}
		}
	}
	return megabytes
}

// loops are the loop devices that have a file.
func loops(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	return all
}
