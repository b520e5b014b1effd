package aws

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"

	"github.com/kubewright/kubewright/providers/waits"
)

// attempts are those of a call that may pass when it is made again.
const attempts = 12

// backoff is how long a call waits before it is made again: as the SDK does, but people are told.
type backoff struct {
	waits    *waits.List
	answered atomic.Bool // AWS has, in this run
}

// BackoffDelay comes after so many attempts. An error ends the call: where nobody has ever answered, nobody will.
func (b *backoff) BackoffDelay(attempt int, err error) (time.Duration, error) {
	if !b.answered.Load() && attempt >= 4 && nobody(err) {
		return 0, err
	}
	d, e := retry.NewExponentialJitterBackoff(retry.DefaultMaxBackoff).BackoffDelay(attempt, err)
	if attempt > 1 {
		why := codeOf(err)
		if inner := (net.Error)(nil); why == "" && errors.As(err, &inner) {
			why = inner.Error()
		}
		b.waits.For("an answer of AWS", why, time.Now().Add(d))
	}
	return d, e
}

// nobody tells that nobody listens where AWS is asked, or that there is no such place.
func nobody(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) || noHost(err) }
