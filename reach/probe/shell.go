package probe

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// errorStreams await the shells whose standard errors they are, by names of the other end's.
type errorStreams struct {
	mu sync.Mutex
	of map[string]net.Conn
}

func (e *errorStreams) put(name string, stream net.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.of == nil {
		e.of = map[string]net.Conn{}
	}
	e.of[name] = stream
}

func (e *errorStreams) take(name string) net.Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	stream := e.of[name]
	delete(e.of, name)
	return stream
}

// shell runs "sh -c SCRIPT" here, with a stream as standard input and output, until it ends; one more is its standard error.
func shell(stream net.Conn, in *bufio.Reader, errs net.Conn, script string) {
	if errs == nil {
		fmt.Fprintln(stream, "the stream of its errors is not there")
		return
	}
	defer errs.Close()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = 5 * time.Second // for what the shell has left running, and what holds its outputs
	ready := make(chan struct{})
	cmd.Stdout, cmd.Stderr = after{ready, stream}, errs
	to, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(stream, strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	fmt.Fprintln(stream, OK)
	close(ready)
	go func() {
		io.Copy(to, in)
		to.Close()
		io.Copy(io.Discard, in) // whoever writes does not wait for a shell that has ended
	}()
	cmd.Wait()
}

// after writes nothing before it may.
type after struct {
	ready <-chan struct{}
	to    io.Writer
}

func (a after) Write(b []byte) (int, error) {
	<-a.ready
	return a.to.Write(b)
}
