package reach

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/kubewright/kubewright/host"
)

// Shell starts "sh" there with a program, as [host.Transport] has it. A relay that has ended is [io.ErrClosedPipe].
func (r *Relay) Shell(ctx context.Context, program string) (*host.Pipe, error) {
	name := rand.Text()
	errs, err := r.Dial(ctx, "errors", name)
	if err != nil {
		return nil, err
	}
	script := fmt.Sprintf(`kubewright=$(%s) && eval "$kubewright"`, host.ProgramFrom(program))
	stream, err := r.Dial(ctx, "shell", name+" "+script)
	if err == nil {
		if _, err = io.WriteString(stream, program); err != nil {
			stream.Close()
		}
	}
	if err != nil {
		errs.Close()
		return nil, err
	}
	ended := make(chan struct{})
	closed := sync.OnceValue(func() error {
		close(ended)
		for _, s := range []net.Conn{stream, errs} {
			s.Close()
			s.SetReadDeadline(time.Unix(1, 0)) // whoever reads hears of it
		}
		return nil
	})
	context.AfterFunc(ctx, func() { closed() })
	return &host.Pipe{In: stream, Out: output{r, stream, ended}, Err: output{r, errs, ended}, Close: closed}, nil
}

// output is one of a shell's. A relay that ends is an error, not the end of a file.
type output struct {
	*Relay
	from  io.Reader
	ended <-chan struct{}
}

func (o output) Read(b []byte) (int, error) {
	n, err := o.from.Read(b)
	if err == nil {
		return n, nil
	}
	select {
	case <-o.ended:
		return n, io.ErrClosedPipe
	default:
	}
	if o.session.IsClosed() {
		err = &host.UnreachableError{Err: errors.New("the machine was stopped, or the way to it")}
	}
	return n, err
}
