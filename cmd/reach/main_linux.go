// Command reach is what kubewright has running on hosts for a moment: to find out which packets get from one
// to the other (reach), or to connect and start shells there (relay). Its arguments are the folder that it lies in, which it
// removes, and its task.
package main

import (
	"fmt"
	"os"
	"syscall"

	"github.com/kubewright/kubewright/reach/probe"
)

func main() {
	if len(os.Args) < 3 {
		return // somebody tries whether it can be run
	}
	// First: nothing is left, however this ends.
	if err := os.RemoveAll(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	var err error
	if os.Args[2] == "relay" {
		syscall.Umask(0o022) // what started this had its own, and shells have files to make
		err = probe.Relay(os.Stdin, os.Stdout)
	} else {
		err = probe.Serve(os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
