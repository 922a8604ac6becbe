package main

import (
	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

const nanosPerUnit = 1_000_000_000

// Without cents; whatever else can be paid in here has two digits.
var wholeOnly = map[string]bool{"JPY": true}

// payable is an amount in whole cents, or whole yen. Half a cent goes up, as on the page.
func payable(money *boutiquev1.Money) *boutiquev1.Money {
	step := int64(nanosPerUnit / 100)
	if wholeOnly[money.CurrencyCode] {
		step = nanosPerUnit
	}
	nanos := (int64(money.Nanos) + step/2) / step * step
	return &boutiquev1.Money{
		CurrencyCode: money.CurrencyCode,
		Units:        money.Units + nanos/nanosPerUnit,
		Nanos:        int32(nanos % nanosPerUnit),
	}
}

func times(money *boutiquev1.Money, quantity int32) *boutiquev1.Money {
	nanos := int64(money.Nanos) * int64(quantity)
	return &boutiquev1.Money{
		CurrencyCode: money.CurrencyCode,
		Units:        money.Units*int64(quantity) + nanos/nanosPerUnit,
		Nanos:        int32(nanos % nanosPerUnit),
	}
}

// plus adds two amounts of one currency.
func plus(one, other *boutiquev1.Money) *boutiquev1.Money {
	nanos := int64(one.Nanos) + int64(other.Nanos)
	return &boutiquev1.Money{
		CurrencyCode: one.CurrencyCode,
		Units:        one.Units + other.Units + nanos/nanosPerUnit,
		Nanos:        int32(nanos % nanosPerUnit),
	}
}
