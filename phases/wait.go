package phases

import (
	"context"
	"fmt"
	"time"
)

// interval between two looks at something that cannot be watched.
const interval = 50 * time.Millisecond

// until looks again and again until look returns nil, and at the latest until limit has
// passed; the error then holds what was seen last.
func until(ctx context.Context, limit time.Duration, what string, look func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last error
	for {
		err := look(bounded)
		if err == nil {
			return nil
		}
		// A look that was cut off by the deadline saw nothing new.
		if last == nil || bounded.Err() == nil {
			last = err
		}
		select {
		case <-bounded.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%s: not within %s: %w", what, limit, last)
		case <-tick.C:
		}
	}
}
