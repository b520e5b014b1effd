package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
)

const (
	// large is how much of a blob counts for the room that it takes: no more of it is on its way.
	large = 1 << 20
	// piece fits into a buffer of gRPC's with what a message has beside it; the next size is a mebibyte.
	piece = 31 << 10
)

// write brings a blob into the content store; what is there already is skipped. The library's
// waits for an answer to each mebibyte, and holds one: through a long line and for many hosts, that is slow and large.
func write(ctx context.Context, c *client.Client, ref string, from io.Reader, x blob) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, offset, err := negotiate(ctx, c, ref, x)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, from, offset); err != nil {
		return err
	}
	committed := make(chan error, 1)
	go func() {
		for {
			answer, err := stream.Recv()
			if err != nil || answer.Action == contentapi.WriteAction_COMMIT {
				committed <- errgrpc.ToNative(err)
				return
			}
		}
	}()
	err = sendPieces(stream, offset, from, x)
	if err != nil && !errors.Is(err, io.EOF) { // that of the stream says less than the answer
		return err
	}
	if err = <-committed; errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// negotiate tells the store what comes, and learns how much of it is there. A run that was cut short
// may hold it for a moment yet.
func negotiate(ctx context.Context, c *client.Client, ref string, x blob) (contentapi.Content_WriteClient, int64, error) {
	for {
		stream, err := contentapi.NewContentClient(c.Conn().(grpc.ClientConnInterface)).Write(ctx)
		if err != nil {
			return nil, 0, errgrpc.ToNative(err)
		}
		stream.Send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_STAT, Ref: ref, Total: x.size, Expected: x.digest})
		answer, err := stream.Recv()
		if err == nil {
			return stream, answer.Offset, nil
		}
		if err = errgrpc.ToNative(err); !errdefs.IsUnavailable(err) {
			return nil, 0, err
		}
		select {
		case <-ctx.Done():
			return nil, 0, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func sendPieces(stream contentapi.Content_WriteClient, offset int64, from io.Reader, x blob) error {
	b := make([]byte, min(piece, x.size-offset+1)) // one more: who reads to the end learns that the blob is right
	for {
		n, err := io.ReadFull(from, b)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		if n > 0 {
			if err := stream.Send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_WRITE, Offset: offset, Data: b[:n]}); err != nil {
				return err
			}
			offset += int64(n)
		}
		if err != nil {
			break
		}
	}
	if offset != x.size {
		return fmt.Errorf("%d bytes instead of %d", offset, x.size)
	}
	return stream.Send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_COMMIT, Total: x.size, Offset: offset, Expected: x.digest})
}
