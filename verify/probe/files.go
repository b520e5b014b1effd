package probe

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// files reads files: from path to content.
func files(_ context.Context, paths []string) (map[string]string, error) {
	all := map[string]string{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		all[p] = string(b)
	}
	return all, nil
}

// Write writes a file.
type Write struct{ Path, Text string }

func write(_ context.Context, w Write) (int, error) {
	return len(w.Text), os.WriteFile(w.Path, []byte(w.Text), 0o644)
}

// Beginning is what an init container that runs twice has seen: a line of JSON each time.
type Beginning struct {
	Addresses []string
	At        time.Time
}

// twice notes in a file that it was run, fails the first time, and succeeds the second.
func twice(_ context.Context, _ Streams, file string) error {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	b := Beginning{At: time.Now()}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			b.Addresses = append(b.Addresses, n.IP.String())
		}
	}
	before, err := os.ReadFile(file)
	first := errors.Is(err, os.ErrNotExist)
	if err != nil && !first {
		return err
	}
	line, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(append(before, line...), '\n'), 0o644); err != nil {
		return err
	}
	if first {
		return errors.New("this container fails once, as it is meant to")
	}
	return nil
}

// Beginnings reads what twice has written.
func Beginnings(text string) (all []Beginning, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	for {
		var b Beginning
		if err := d.Decode(&b); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
}

// connect carries bytes between its caller and an address, HOST:PORT.
func connect(ctx context.Context, s Streams, address string) error {
	conn, err := (&net.Dialer{Timeout: answerLimit}).DialContext(ctx, "tcp", address)
	if err != nil {
		return errors.New(address + ": " + complaint(err))
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, s.In)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(s.Out, conn)
	return err
}
