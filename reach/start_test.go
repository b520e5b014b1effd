package reach

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Two commands may look at one host at the same time.
func TestOneStartLeavesAnotherAlone(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write([]byte("#!/bin/sh\n[ $# = 0 ] || { rm -rf \"$1\"; echo ran; }\n"))
	w.Close()
	base := t.TempDir()
	if err := os.Mkdir(base+"/kubewright-relay.999999999", 0o700); err != nil { // of a run that was killed
		t.Fatal(err)
	}
	start := func() (*exec.Cmd, *os.File, *bytes.Buffer) {
		cmd := exec.Command("sh", "-c", fmt.Sprintf("length=%d task=relay folders=%s\n%s", packed.Len(), base, startProgram))
		theirs, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		return cmd, in, &out
	}
	first, in, said := start()
	for { // until it has a folder
		if all, err := os.ReadDir(base); err != nil || len(all) > 0 && all[0].Name() != "kubewright-relay.999999999" {
			break
		}
	}
	second, in2, said2 := start()
	in2.Write(packed.Bytes())
	in2.Close()
	if err := second.Wait(); err != nil || said2.String() != "ran\n" {
		t.Errorf("the second: %v: %s", err, said2)
	}
	in.Write(packed.Bytes())
	in.Close()
	if err := first.Wait(); err != nil || said.String() != "ran\n" {
		t.Errorf("the first: %v: %s", err, said)
	}
	if left, err := os.ReadDir(base); err != nil || len(left) > 0 {
		t.Errorf("they left %v, %v", left, err)
	}
}
