// Command maxrss runs a command and then prints, as its last line, the most memory that
// it ever had resident: "maxrss KIB". Hosts of the lab have no GNU time.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "maxrss:", err)
		os.Exit(1)
	}
	fmt.Println("maxrss", cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
}
