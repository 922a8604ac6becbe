package main

import (
	"crypto/sha256"
	"encoding/base32"
	"sync"
)

// ordersMax bounds what is remembered, at about 200 bytes an order.
const ordersMax = 100_000

// parcels remembers which orders were sent and which were cancelled, the latest ones.
//
// What is forgotten does no harm to repetition: a tracking id depends on nothing but the
// order, so sending it again, also by another process, is the same parcel.
type parcels struct {
	mu     sync.Mutex
	known  map[string]parcel
	oldest []string // ring: the orders that are known, in the order in which they came
	next   int
}

type parcel struct{ sent, cancelled bool }

func newParcels(most int) *parcels {
	return &parcels{known: map[string]parcel{}, oldest: make([]string, most)}
}

// send is false for an order that was cancelled.
func (p *parcels) send(order string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.known[order]
	if now.cancelled {
		return false
	}
	p.remember(order, parcel{sent: true})
	return true
}

// cancel says whether there was anything to take back.
func (p *parcels) cancel(order string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.known[order]
	p.remember(order, parcel{sent: now.sent, cancelled: true})
	return now.sent
}

func (p *parcels) remember(order string, now parcel) {
	if _, known := p.known[order]; !known {
		delete(p.known, p.oldest[p.next])
		p.oldest[p.next] = order
		p.next = (p.next + 1) % len(p.oldest)
	}
	p.known[order] = now
}

func tracking(order string) string {
	sum := sha256.Sum256([]byte(order))
	return "WB-" + base32.StdEncoding.EncodeToString(sum[:10])
}
