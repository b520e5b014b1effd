// Command fleet simulates hosts until its standard input ends: see package fleet. It says "ready"
// when they can be reached, and then a line of JSON for each connection that has ended.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/kubewright/kubewright/e2e/fleet"
)

func main() {
	hosts := flag.Int("hosts", 10, "how many")
	delay := flag.Duration("delay", 25*time.Millisecond, "one way")
	dir := flag.String("dir", ".", "for what an operator needs")
	trace := flag.String("trace", "", "a host, h-2 say: what it is asked goes to standard error, after how many round trips")
	flag.Parse()
	if err := run(*hosts, *delay, *dir, *trace); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(hosts int, delay time.Duration, dir, trace string) error {
	if err := fleet.WriteBundle(context.Background(), filepath.Join(dir, "bundle")); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	f := &fleet.Fleet{Hosts: hosts, Delay: delay, Dir: dir, Visited: func(v fleet.Visit) { out.Encode(v) }}
	if trace != "" {
		f.Asked = func(host string, trips int, what string) {
			if host == trace {
				fmt.Fprintf(os.Stderr, "%3d %s\n", trips, what)
			}
		}
	}
	if err := f.Start(); err != nil {
		return err
	}
	defer f.Stop()
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
