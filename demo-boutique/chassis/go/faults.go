// Package chassis is what a Go service of the shop has besides its own job: knobs for
// faults, health, and an orderly end.
package chassis

import (
	"context"
	"fmt"
	"math/rand"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// workMax bounds the line for the slots, and those at them: who left is still in it.
const workMax = 4096

// Faults does to every call what the knobs say, before its handler runs:
//
//	freeze → latency → error → work
//
// Freeze and latency end when the caller gives up. Work does not: a worker does not see
// its caller leave, and that is what makes an overloaded service waste its capacity.
type Faults struct {
	mu      sync.Mutex
	knobs   *boutiquev1.Knobs
	changed chan struct{} // closed and replaced by Set: wakes frozen calls
	busy    int32         // workers at work
	working int           // calls that have one of these or wait for one
	freed   *sync.Cond    // a worker may have become free
	percent func() int32  // drawn anew for every call
}

// NewFaults starts with the given knobs, which have to be valid.
func NewFaults(knobs *boutiquev1.Knobs) (*Faults, error) {
	f := &Faults{
		knobs:   &boutiquev1.Knobs{},
		changed: make(chan struct{}),
		percent: percent(),
	}
	f.freed = sync.NewCond(&f.mu)
	return f, f.Set(knobs)
}

// percent makes a source of numbers from 0 to 99. It has a seed of its own, because Go before
// 1.20 starts all processes with the same one and replicas would fail in step.
func percent() func() int32 {
	var mu sync.Mutex
	dice := rand.New(rand.NewSource(time.Now().UnixNano()))
	return func() int32 {
		mu.Lock()
		defer mu.Unlock()
		return dice.Int31n(100)
	}
}

// Knobs now in force. They are replaced, never changed: keep them as long as you like.
func (f *Faults) Knobs() *boutiquev1.Knobs {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.knobs
}

// Set replaces all knobs at once, also for the calls that are frozen or queued now.
func (f *Faults) Set(knobs *boutiquev1.Knobs) error {
	if err := check(knobs); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.knobs = knobs
	close(f.changed)
	f.changed = make(chan struct{})
	f.freed.Broadcast()
	return nil
}

func check(knobs *boutiquev1.Knobs) error {
	within := func(name string, value, max int32) error {
		if value < 0 || value > max {
			return fmt.Errorf("%s is %d, it has to be between 0 and %d", name, value, max)
		}
		return nil
	}
	const hour = int32(time.Hour / time.Millisecond)
	for _, err := range []error{
		within("latency_ms", knobs.LatencyMs, hour),
		within("error_pct", knobs.ErrorPct, 100),
		within("code", knobs.Code, int32(codes.Unauthenticated)),
		within("slots", knobs.Slots, 1<<20),
		within("service_ms", knobs.ServiceMs, hour),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// Before holds, fails or delays one call as the knobs say.
func (f *Faults) Before(ctx context.Context) error {
	knobs, err := f.thawed(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, milliseconds(knobs.LatencyMs)); err != nil {
		return err
	}
	if f.percent() < knobs.ErrorPct {
		code := codes.Code(knobs.Code)
		if code == codes.OK {
			code = codes.Unavailable
		}
		return status.Error(code, "chaos: this call was told to fail")
	}
	return f.work()
}

func (f *Faults) thawed(ctx context.Context) (*boutiquev1.Knobs, error) {
	for {
		f.mu.Lock()
		knobs, changed := f.knobs, f.changed
		f.mu.Unlock()
		if !knobs.Freeze {
			return knobs, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// work occupies one of the slots for the service time.
func (f *Faults) work() error {
	f.mu.Lock()
	if f.knobs.Slots == 0 && f.knobs.ServiceMs == 0 {
		f.mu.Unlock()
		return nil
	}
	if f.working == workMax {
		f.mu.Unlock()
		return status.Errorf(codes.ResourceExhausted, "%d calls wait for a slot already", workMax)
	}
	f.working++
	for f.knobs.Slots > 0 && f.busy >= f.knobs.Slots {
		f.freed.Wait()
	}
	f.busy++
	service := milliseconds(f.knobs.ServiceMs)
	f.mu.Unlock()

	time.Sleep(service)

	f.mu.Lock()
	f.busy--
	f.working--
	f.mu.Unlock()
	f.freed.Signal()
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

func milliseconds(n int32) time.Duration { return time.Duration(n) * time.Millisecond }
