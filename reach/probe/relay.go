package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"
)

// Relay connects whoever is at the other end of in and out with what this host can connect to, until in
// ends. Each stream begins with a line "NETWORK ADDRESS", and is answered by one: "ok", and then it is the
// connection; else [Absent], [Refused], or words. A stream "errors NAME" becomes the standard error of the shell
// that another one asks for, "shell NAME SCRIPT", whose input and output that is.
func Relay(in io.ReadCloser, out io.WriteCloser) error {
	session, err := yamux.Server(duplex{in, out}, Session())
	if err != nil {
		return err
	}
	var errs errorStreams
	for {
		stream, err := session.Accept()
		if err != nil {
			return nil
		}
		go relay(stream, &errs)
	}
}

func relay(stream net.Conn, errs *errorStreams) {
	from := bufio.NewReader(stream)
	line, err := from.ReadString('\n')
	network, address, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if err == nil && network == "errors" {
		errs.put(address, stream)
		fmt.Fprintln(stream, OK)
		return
	}
	defer stream.Close()
	if err != nil {
		return
	}
	if network == "shell" {
		name, script, _ := strings.Cut(address, " ")
		shell(stream, from, errs.take(name), script)
		return
	}
	conn, err := net.DialTimeout(network, address, 20*time.Second) // the other end waits for 30
	switch {
	case errors.Is(err, syscall.ENOENT):
		fmt.Fprintln(stream, Absent)
	case errors.Is(err, syscall.ECONNREFUSED):
		fmt.Fprintln(stream, Refused)
	case err != nil:
		fmt.Fprintln(stream, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintln(stream, OK)
	go func() {
		io.Copy(conn, from)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	}()
	io.Copy(stream, conn)
}
