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
	o.mu.Lock()
	first, there := o.outcomes[key]
	if !there {
		first = &outcome{known: make(chan struct{})}
		o.outcomes[key] = first
	}
	o.mu.Unlock()
	if there {
		select {
		case <-first.known:
			return first.placed, first.err
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}

	first.err = status.Error(codes.Internal, "placing the order broke") // unless it gets to its end
	defer func() {
		close(first.known)
		o.settle(key, first.err == nil || status.Code(first.err) == codes.Aborted)
	}()
	first.placed, first.err = place()
	return first.placed, first.err
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
