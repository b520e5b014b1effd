package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Get fetches URLs, all at once.
type Get struct {
	URLs []string
	// Host is sent in place of the URL's.
	Host string `json:",omitempty"`
	// By are names of pods, one of which has to answer each URL; empty: that anybody answers is enough.
	By []string `json:",omitempty"`
	// Times is how often each is fetched; 0: once.
	Times int `json:",omitempty"`
	// Within is for all URLs to be answered as wanted.
	Within time.Duration
	// Silent wants the opposite: that nobody answers.
	Silent bool `json:",omitempty"`
}

// Got is what a URL came to.
type Got struct {
	URL   string
	Body  string         // its first 4 KiB
	Who   Who            // where serve has answered
	By    map[string]int `json:",omitempty"` // how often who answered
	Error string         `json:",omitempty"` // in words for people; empty: it was answered as wanted
}

// answerLimit is for one answer.
const answerLimit = 3 * time.Second

var client = &http.Client{Timeout: answerLimit, Transport: &http.Transport{DisableKeepAlives: true}}

func get(ctx context.Context, g Get) ([]Got, error) {
	all := make([]Got, len(g.URLs))
	until(ctx, g.Within, func(ctx context.Context) bool {
		var wg sync.WaitGroup
		for i, u := range g.URLs {
			if all[i].URL == "" || (all[i].Error == "") == g.Silent {
				wg.Go(func() { all[i] = g.fetch(ctx, u) })
			}
		}
		wg.Wait()
		return !slices.ContainsFunc(all, func(x Got) bool { return (x.Error == "") == g.Silent })
	})
	return all, nil
}

// fetch fetches one URL as often as wanted, one after the other.
func (g Get) fetch(ctx context.Context, u string) Got {
	x := Got{URL: u, By: map[string]int{}}
	for range max(g.Times, 1) {
		if x.Error = x.once(ctx, g.Host); x.Error != "" {
			break
		}
		if len(g.By) > 0 && !slices.Contains(g.By, x.Who.Name) {
			x.Error = fmt.Sprintf("something else answered: %q", strings.TrimSpace(x.Body))
			break
		}
		x.By[x.Who.Name]++
	}
	return x
}

func (x *Got) once(ctx context.Context, host string) string {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, x.URL, nil)
	if err != nil {
		return err.Error()
	}
	if host != "" {
		r.Host = host
	}
	answer, err := client.Do(r)
	if err != nil {
		return complaint(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	if err != nil {
		return complaint(err)
	}
	x.Body, x.Who = string(b), Who{}
	_ = json.Unmarshal(b, &x.Who) // others answer otherwise
	if answer.StatusCode >= 300 {
		return answer.Status + ": " + strings.TrimSpace(x.Body)
	}
	return ""
}

// complaint is an error without what the reader knows.
func complaint(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		if u.Timeout() {
			return fmt.Sprintf("no answer within %s", answerLimit)
		}
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err.Error()
}
