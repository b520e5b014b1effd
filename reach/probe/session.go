package probe

import (
	"io"
	"time"

	"github.com/hashicorp/yamux"
)

// What Relay answers.
const (
	OK      = "ok"
	Absent  = "absent"  // there is no such socket
	Refused = "refused" // nobody listens there
)

// Session is how both ends of [Relay] speak. They notice within a minute and a half that the other one is gone.
func Session() *yamux.Config {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard
	c.ConnectionWriteTimeout = time.Minute
	c.StreamCloseTimeout = 0 // who has said all may yet listen for long
	return c
}

type duplex struct {
	io.ReadCloser
	out io.WriteCloser
}

func (d duplex) Write(b []byte) (int, error) { return d.out.Write(b) }

func (d duplex) Close() error {
	d.out.Close()
	return d.ReadCloser.Close()
}
