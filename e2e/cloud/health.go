package cloud

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// watch asks a target whether it is well, for as long as it is registered, and notes what it says.
func (q *call) watch(tg *resource, x *target) {
	if _, ok := q.c.options.Machines.(Network); !ok {
		return
	}
	c := q.c
	c.running.Go(func() {
		for good, bad := 0, 0; ; {
			c.mu.Lock()
			every := c.options.Check
			if every == 0 {
				every = time.Duration(params{"": {tg.str("HealthCheckIntervalSeconds")}}.num("", 30)) * time.Second
			}
			url, eni := c.checkOf(tg, x)
			up, down := params{"": {tg.str("HealthyThresholdCount")}}.num("", 5), params{"": {tg.str("UnhealthyThresholdCount")}}.num("", 2)
			c.mu.Unlock()
			if eni != nil {
				dialer := &net.Dialer{LocalAddr: from(eni)}
				if err := healthy(x.ended, dialer, url, tg.str("Matcher.HttpCode"), every); err == nil {
					good, bad = good+1, 0
				} else {
					good, bad = 0, bad+1
				}
				c.mu.Lock()
				if good >= up && x.state != "draining" {
					x.state = "healthy"
				} else if bad >= down && x.state != "draining" {
					if x.state == "healthy" && tg.attrs["target_health_state.unhealthy.connection_termination.enabled"] == "true" {
						x.serve() // who was connected learns it by a reset
					}
					x.state = "unhealthy"
				}
				c.mu.Unlock()
			}
			select {
			case <-x.ended.Done():
				return
			case <-time.After(every):
			}
		}
	})
}

// checkOf is what is asked of a target, and from which interface of a load balancer; nil: nobody asks.
func (c *Cloud) checkOf(tg *resource, x *target) (url string, eni *resource) {
	c.settle()
	q := c.on(tg)
	a, _ := q.at(x)
	port := x.port
	if p, err := strconv.Atoi(tg.str("HealthCheckPort")); err == nil {
		port = p
	}
	url = fmt.Sprintf("%s://%s%s", strings.ToLower(tg.str("HealthCheckProtocol")), netip.AddrPortFrom(a, uint16(port)), tg.str("HealthCheckPath"))
	for _, l := range q.with("listener", "DefaultActions.TargetGroupArn", tg.id) {
		lb := q.find("load-balancer", l.str("LoadBalancerArn"))
		for _, e := range q.interfacesOf(lb) {
			if !q.reaches(lb, e, tg, a, port, netip.Addr{}) {
				return "blocked://" + a.String(), e
			}
			if a.IsValid() {
				return url, e
			}
		}
	}
	return url, nil
}

// healthy asks once: tcp://, http:// or https://, whose certificate nobody looks at.
func healthy(ctx context.Context, d *net.Dialer, url, codes string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	scheme, rest, _ := strings.Cut(url, "://")
	switch scheme {
	case "blocked":
		return errors.New("the security groups of the target do not let the load balancer in")
	case "tcp":
		conn, err := d.DialContext(ctx, "tcp", strings.TrimSuffix(rest, "/"))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: d.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	for _, r := range strings.Split(codes, ",") {
		from, to, ok := strings.Cut(r, "-")
		if !ok {
			to = from
		}
		low, err1 := strconv.Atoi(from)
		high, err2 := strconv.Atoi(to)
		if err1 == nil && err2 == nil && resp.StatusCode >= low && resp.StatusCode <= high {
			return nil
		}
	}
	return fmt.Errorf("%s: %s", url, resp.Status)
}
