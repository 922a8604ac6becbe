package main

import (
	"hash/fnv"
	"math"
	"time"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// How far, and how fast, a spot price swings around the list price.
const (
	swing  = 0.04
	period = 90 * time.Second
)

// tick is the spot price of a product at a moment. It depends on nothing else, so that
// replicas agree without knowing each other.
func tick(product *boutiquev1.Product, at time.Time) *boutiquev1.PriceTick {
	phase := 2 * math.Pi * (float64(at.UnixNano()%int64(period))/float64(period) + offset(product.Id))
	list := product.PriceUsd.Units*100 + int64(product.PriceUsd.Nanos)/centNanos
	cents := int64(math.Round(float64(list) * (1 + swing*math.Sin(phase))))
	return &boutiquev1.PriceTick{
		ProductId: product.Id,
		PriceUsd:  &boutiquev1.Money{CurrencyCode: "USD", Units: cents / 100, Nanos: int32(cents%100) * centNanos},
		AtUnixMs:  at.UnixMilli(),
	}
}

const centNanos = 10_000_000

// offset spreads the products over the period, so that they do not all rise at once.
func offset(id string) float64 {
	hash := fnv.New32a()
	hash.Write([]byte(id)) // never fails
	return float64(hash.Sum32()) / math.MaxUint32
}
