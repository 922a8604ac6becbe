package main

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// ordersMax bounds what is remembered, at a kilobyte or so an order.
const ordersMax = 5_000

// once makes requests with one key one request: while the first is under way the others
// wait for it, and afterwards they hear what it heard. The latest outcomes are remembered.
type once struct {
	mu       sync.Mutex
	outcomes map[string]*outcome
	oldest   []string // ring: the keys that are remembered, in the order in which they ended
	next     int
}

type outcome struct {
	known  chan struct{} // closed when the fields below are set
	placed *boutiquev1.PlaceOrderResponse
	err    error
}

func newOnce(most int) *once {
	return &once{outcomes: map[string]*outcome{}, oldest: make([]string, most)}
}

// do places an order unless there is one with this key. What failed is forgotten, so that it
// can be tried again; except for what was begun and taken back, which is over for good.
func (o *once) do(ctx context.Context, key string, place func() (*boutiquev1.PlaceOrderResponse, error)) (*boutiquev1.PlaceOrderResponse, error) {
	for {
		first, there := o.find(key)
		if !there {
			return o.place(key, first, place)
		}
		select {
		case <-first.known:
			if !ranOut(first.err) || ctx.Err() != nil {
				return first.placed, first.err
			}
			// It was placed in the time of the first caller; this one has some left, and has its turn.
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// find is what there is with this key, and whether that was there before.
func (o *once) find(key string) (*outcome, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	found, there := o.outcomes[key]
	if !there {
		found = &outcome{known: make(chan struct{})}
		o.outcomes[key] = found
	}
	return found, there
}

func (o *once) place(key string, first *outcome, place func() (*boutiquev1.PlaceOrderResponse, error)) (*boutiquev1.PlaceOrderResponse, error) {
	first.err = status.Error(codes.Internal, "placing the order broke") // unless it gets to its end
	defer func() {
		// In this order: whoever hears that it failed finds it forgotten.
		o.settle(key, first.err == nil || status.Code(first.err) == codes.Aborted)
		close(first.known)
	}()
	first.placed, first.err = place()
	return first.placed, first.err
}

func ranOut(err error) bool {
	code := status.Code(err)
	return code == codes.Canceled || code == codes.DeadlineExceeded
}

func (o *once) settle(key string, forGood bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !forGood {
		delete(o.outcomes, key)
		return
	}
	delete(o.outcomes, o.oldest[o.next])
	o.oldest[o.next] = key
	o.next = (o.next + 1) % len(o.oldest)
}
