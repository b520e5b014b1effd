package host

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The wire between a Remote and its agent, which agent.sh describes: what is needed to ask, and
// for a simulated machine to understand and to answer.

// quote makes one word of s, as a shell reads it.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// frame is a request of several operations, each a verb and its words, without their payloads.
func frame(operations [][]string) []byte {
	var request strings.Builder
	for i, words := range operations {
		if i > 0 {
			request.WriteByte('\n')
		}
		request.WriteString("op")
		for _, w := range words {
			request.WriteByte(' ')
			request.WriteString(quote(w))
		}
	}
	return fmt.Appendf(nil, "%d\n%s", request.Len(), request.String())
}

// ReadFrame reads a frame up to its payloads, and returns its operations: each a verb and its
// words. Between frames the error is [io.EOF], within one [io.ErrUnexpectedEOF].
func ReadFrame(r *bufio.Reader) ([][]string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(line, "\n"))
	if err != nil || n < 0 {
		return nil, fmt.Errorf("%q is not the length of a request", line)
	}
	request := make([]byte, n)
	if _, err := io.ReadFull(r, request); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return parse(string(request))
}

var errRequest = errors.New("a request has a line that is not op 'VERB' 'WORD'...")

func parse(request string) (operations [][]string, err error) {
	for rest := request; ; rest = rest[1:] {
		if !strings.HasPrefix(rest, "op '") {
			return nil, errRequest
		}
		rest = rest[2:]
		var words []string
		for strings.HasPrefix(rest, " '") {
			var word strings.Builder
			rest = rest[2:]
			for {
				text, after, closed := strings.Cut(rest, "'")
				if !closed {
					return nil, errRequest
				}
				word.WriteString(text)
				if rest = after; !strings.HasPrefix(rest, `\''`) {
					break
				}
				word.WriteByte('\'')
				rest = rest[len(`\''`):]
			}
			words = append(words, word.String())
		}
		operations = append(operations, words)
		if rest == "" {
			return operations, nil
		}
		if rest[0] != '\n' {
			return nil, errRequest
		}
	}
}

// Answer ends the answer to an operation on one of the agent's two outputs, after what the
// operation has printed there. The nonce is the first line that the agent was sent.
func Answer(w io.Writer, nonce string, code int) error {
	_, err := fmt.Fprintf(w, "\n%s %d\n", nonce, code)
	return err
}
