package verify

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// rulesLimit is for a new service to reach the rules of every node.
const rulesLimit = 15 * time.Second

// callScript gets its arguments, URLs, all at once: "URL CODE ANSWER" a line.
const callScript = `for u; do ( out=$(timeout 3 wget -qO- "$u" 2>&1); echo "$u $? "$out ) & done; wait`

// who is the URL at which serve answers.
func who(ip string, port int32) string {
	return "http://" + net.JoinHostPort(ip, strconv.Itoa(int(port))) + "/cgi-bin/who"
}

// call gets URLs from a pod until a backend has answered at each.
func (c *Cluster) call(ctx context.Context, from *corev1.Pod, urls ...string) error {
	return until(ctx, rulesLimit, func(ctx context.Context) error {
		out, err := c.sh(ctx, from, callScript, urls...)
		if err != nil {
			return err
		}
		answers := map[string]string{}
		for line := range strings.Lines(out) {
			url, answer, _ := strings.Cut(strings.TrimSpace(line), " ")
			answers[url] = answer
		}
		var errs []error
		for _, u := range urls {
			if answer := answers[u]; !strings.HasPrefix(answer, "0 ") || !strings.Contains(answer, " backend-") {
				errs = append(errs, fmt.Errorf("%s: %s", u, complaint(answer)))
			}
		}
		if len(errs) > 1 {
			return fmt.Errorf("%d of %d URLs fail, the first is %w", len(errs), len(urls), errs[0])
		}
		return lines(errs...)
	})
}

// complaint says what "CODE ANSWER" of a wget under timeout means.
func complaint(answer string) string {
	code, text, _ := strings.Cut(answer, " ")
	text = strings.TrimPrefix(text, "wget: ")
	switch {
	case code == "143": // killed by timeout
		return "no answer within 3s"
	case code == "0":
		return fmt.Sprintf("something else answered: %q", text)
	case text != "":
		return text
	}
	return "wget ended with code " + code
}
