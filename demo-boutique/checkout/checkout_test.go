package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func request(mode boutiquev1.Mode, key string) *boutiquev1.PlaceOrderRequest {
	return &boutiquev1.PlaceOrderRequest{
		UserId: "ann", UserCurrency: "EUR", Email: "ann@example.org", Mode: mode, IdempotencyKey: key,
		Address:    &boutiquev1.Address{StreetAddress: "1 Mill Lane", Country: "England"},
		CreditCard: &boutiquev1.CreditCardInfo{CreditCardNumber: "4432-8015-6152-0454"},
	}
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestAnOrderIsPricedPaidSentAndTheCartEmptied(t *testing.T) {
	n, client := open(t)
	placed, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key"))
	if err != nil {
		t.Fatal(err)
	}
	const all = "GetCart GetProduct GetProduct GetQuote ConvertBatch Authorize Ship EmptyCart"
	if got := strings.Join(n.calls, " "); got != all {
		t.Errorf("called %s", got)
	}
	// 5.994999999 is 5.99 a mug and 2.994999999 is 2.99 for shipping: 3 × 5.99 + 2.99.
	total := placed.Order.Total
	if total.Units != 20 || total.Nanos != 960_000_000 || total.CurrencyCode != "EUR" {
		t.Errorf("the total is %v", total)
	}
	if n.charged.Amount.String() != total.String() || n.charged.Key != placed.Order.OrderId {
		t.Errorf("charged %v for %s", n.charged.Amount, n.charged.Key)
	}
	if placed.State != boutiquev1.OrderState_CONFIRMED || placed.Order.ShippingTrackingId != "sent" || len(placed.Order.Items) != 1 {
		t.Errorf("placed %v", placed)
	}
}

func TestInDollarsTheCurrencyServiceIsNotAsked(t *testing.T) {
	n, client := open(t)
	order := request(boutiquev1.Mode_SYNC, "")
	order.UserCurrency = "USD"
	if _, err := client.PlaceOrder(soon(t), order); err != nil {
		t.Fatal(err)
	}
	if n.asked("ConvertBatch") != 0 || n.charged.Amount.Units != 34 {
		t.Errorf("charged %v", n.charged.Amount)
	}
}

func TestARequestWithTheSameKeyIsTheSameOrder(t *testing.T) {
	for _, mode := range []boutiquev1.Mode{boutiquev1.Mode_SYNC, boutiquev1.Mode_EVENT} {
		n, client := open(t)
		n.hold["GetQuote"] = make(chan struct{})
		ids := make(chan string, 8)
		for i := 0; i < cap(ids); i++ {
			go func() {
				placed, err := client.PlaceOrder(soon(t), request(mode, "key"))
				if err != nil {
					t.Error(err)
				}
				ids <- placed.GetOrder().GetOrderId()
			}()
		}
		time.Sleep(50 * time.Millisecond) // until all of them are there
		close(n.hold["GetQuote"])
		first := <-ids
		for i := 1; i < cap(ids); i++ {
			if id := <-ids; id != first || id == "" {
				t.Errorf("%v: orders %q and %q", mode, first, id)
			}
		}
		if n.asked("Authorize")+n.asked("Append") != 1 {
			t.Errorf("%v: called %v", mode, n.calls)
		}
	}
}

func TestAnotherUserWithTheSameKeyIsAnotherOrder(t *testing.T) {
	n, client := open(t)
	n.fail("EmptyCart", codes.Unavailable) // nor does that hinder an order
	bens := request(boutiquev1.Mode_SYNC, "key")
	bens.UserId = "ben"
	one, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key"))
	other, err2 := client.PlaceOrder(soon(t), bens)
	if err != nil || err2 != nil || one.Order.OrderId == other.Order.OrderId {
		t.Errorf("%v %v, %v %v", one, err, other, err2)
	}
}

func TestWhatFailsBeforePaymentDoesNothingAndCanBeTriedAgain(t *testing.T) {
	for _, method := range []string{"GetCart", "GetProduct", "GetQuote", "ConvertBatch"} {
		n, client := open(t)
		n.fail(method, codes.Unavailable)
		if _, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key")); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", method, err)
		}
		if n.asked("Authorize")+n.asked("Ship")+n.asked("Refund")+n.asked("EmptyCart") != 0 {
			t.Errorf("%s: called %v", method, n.calls)
		}
		n.heal()
		if _, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key")); err != nil {
			t.Errorf("%s, again: %v", method, err)
		}
	}
}

func TestADeclinedCardKeepsTheCartAndAnotherMayBeTried(t *testing.T) {
	n, client := open(t)
	n.fail("Authorize", codes.FailedPrecondition)
	_, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key"))
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "payment: as it was told") {
		t.Error(err)
	}
	if n.asked("Refund")+n.asked("EmptyCart") != 0 {
		t.Errorf("called %v", n.calls)
	}
	n.heal()
	if _, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key")); err != nil {
		t.Error(err)
	}
}

func TestWhatIsBegunAndCannotBeFinishedIsTakenBackForGood(t *testing.T) {
	for _, method := range []string{"Authorize", "Ship"} {
		n, client := open(t)
		n.fail(method, codes.Unavailable)
		for i := 0; i < 2; i++ {
			if _, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key")); status.Code(err) != codes.Aborted {
				t.Errorf("%s: %v", method, err)
			}
		}
		if n.asked("Cancel") != 1 || n.asked("Refund") != 1 || n.asked("EmptyCart") != 0 {
			t.Errorf("%s: called %v", method, n.calls)
		}
		n.heal()
		if _, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "another key")); err != nil {
			t.Errorf("%s, with another key: %v", method, err)
		}
	}
}

func TestWhatACheckoutThatDiedHadChargedIsTakenBackWhenItCostsSomethingElseByNow(t *testing.T) {
	n, client := open(t)
	if _, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key")); err != nil {
		t.Fatal(err)
	}
	// As if the first had died between payment and shipping, and a mug less were wanted since.
	n.heal()
	n.cart = []*boutiquev1.CartItem{{ProductId: "mug", Quantity: 2}}
	for i := 0; i < 2; i++ { // the second time it is refused as refunded, and over all the same
		_, err := n.checkout(t, n.conn).PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key"))
		if status.Code(err) != codes.Aborted || n.refunds != 1 || n.asked("Cancel") != i+1 {
			t.Errorf("%v, called %v", err, n.calls)
		}
	}
	if n.asked("Ship")+n.asked("EmptyCart") != 0 {
		t.Errorf("called %v", n.calls)
	}
}

func TestOneHalfOfTheTakingBackDoesNotWaitForTheOther(t *testing.T) {
	for hangs, other := range map[string]string{"Cancel": "Refund", "Refund": "Cancel"} {
		n, client := open(t)
		n.fail("Ship", codes.Unavailable)
		n.holds(hangs)
		answer := make(chan error, 1)
		go func() {
			_, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key"))
			answer <- err
		}()
		for until := time.Now().Add(afterwardsTimeout / 2); n.asked(other) == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("%s hangs, and of %s there is nothing", hangs, other)
			}
		}
		n.release(hangs)
		if err := <-answer; status.Code(err) != codes.Aborted || n.asked(hangs) != 1 || n.asked(other) != 1 {
			t.Errorf("%s: %v, called %v", hangs, err, n.calls)
		}
	}
}

func TestARefusedOrderIsTakenBackWhileNobodyKnowsWhetherItWasPaid(t *testing.T) {
	n, client := open(t)
	n.fail("Authorize", codes.FailedPrecondition)
	n.fail("CountCharges", codes.Unavailable)
	if _, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key")); status.Code(err) != codes.Aborted || n.asked("Refund") != 1 {
		t.Errorf("%v, called %v", err, n.calls)
	}
}

func TestTheDeadlineAndTheTraceGoAlongAndTheTakingBackOutlivesThem(t *testing.T) {
	n, client := open(t)
	shipping := n.holds("Ship")
	const patience = 7 * time.Second // less than the 10 s that a call has of its own
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() {
		<-shipping
		cancel()
	}()
	ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", traceparent)
	// The caller leaves, at the latest when its time is over; whether it hears that itself or from checkout is a race.
	_, err := client.PlaceOrder(ctx, request(boutiquev1.Mode_SYNC, "key"))
	if code := status.Code(err); code != codes.Canceled && code != codes.DeadlineExceeded && code != codes.Aborted {
		t.Fatal(err)
	}
	n.mu.Lock()
	if n.deadline == 0 || n.deadline > patience {
		t.Errorf("a call was given %v", n.deadline)
	}
	n.mu.Unlock()
	for until := time.Now().Add(5 * time.Second); n.asked("Refund") == 0 || n.asked("Cancel") == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("nothing was refunded, or nothing cancelled")
		}
	}
	n.tracesAre(t)
}

func TestTheCartOfAnOrderThatStandsIsEmptiedAlsoWhenTheCallerHasLeft(t *testing.T) {
	for _, mode := range []boutiquev1.Mode{boutiquev1.Mode_SYNC, boutiquev1.Mode_EVENT} {
		n, client := open(t)
		emptying := n.holds("EmptyCart")
		ctx, leave := context.WithCancel(soon(t))
		go func() {
			<-emptying
			leave()
		}()
		if _, err := client.PlaceOrder(ctx, request(mode, "key")); status.Code(err) != codes.Canceled {
			t.Fatal(err)
		}
		// Whoever asks again hears of the order, and would pay for a cart that is still full a second time.
		time.Sleep(50 * time.Millisecond)
		n.release("EmptyCart")
		if _, err := client.PlaceOrder(soon(t), request(mode, "key")); err != nil {
			t.Error(mode, err)
		}
		n.mu.Lock()
		if n.cart != nil {
			t.Errorf("%v: the cart still has %v", mode, n.cart)
		}
		n.mu.Unlock()
	}
}

func TestInEventModeAFactIsWrittenDownAndNobodyElseIsAsked(t *testing.T) {
	n, client := open(t)
	ctx := metadata.AppendToOutgoingContext(soon(t), "traceparent", traceparent)
	placed, err := client.PlaceOrder(ctx, request(boutiquev1.Mode_EVENT, "key"))
	if err != nil {
		t.Fatal(err)
	}
	if placed.State != boutiquev1.OrderState_ACCEPTED || n.asked("Authorize")+n.asked("Ship") != 0 || n.asked("EmptyCart") != 1 {
		t.Errorf("placed %v, called %v", placed, n.calls)
	}
	n.tracesAre(t)
	event, fact := n.appended.Events[0], n.appended.Events[0].GetOrderPlaced()
	if n.appended.OrderId != placed.Order.OrderId || n.appended.ExpectedVersion != 0 || event.IdempotencyKey == "" || event.TraceId != traceparent[3:35] {
		t.Errorf("appended %v", n.appended)
	}
	if fact.Total.String() != placed.Order.Total.String() || fact.Items[0].Quantity != 3 || fact.Address.Country != "England" || fact.CreditCard.CreditCardNumber == "" {
		t.Errorf("the fact is %v", fact)
	}
}

func TestWithoutTheLogNothingIsAcceptedAndTheCartIsKept(t *testing.T) {
	n, client := open(t)
	n.fail("Append", codes.Unavailable)
	if _, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_EVENT, "key")); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if n.asked("EmptyCart") != 0 {
		t.Error("the cart is empty")
	}
}

func TestAnEmptyCartIsNoOrder(t *testing.T) {
	n, client := open(t)
	n.cart = nil
	if _, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_SYNC, "key")); status.Code(err) != codes.FailedPrecondition {
		t.Error(err)
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	_, client := open(t)
	for name, spoil := range map[string]func(*boutiquev1.PlaceOrderRequest){
		"mode":    func(r *boutiquev1.PlaceOrderRequest) { r.Mode = 7 },
		"user":    func(r *boutiquev1.PlaceOrderRequest) { r.UserId = "" },
		"address": func(r *boutiquev1.PlaceOrderRequest) { r.Address = nil },
		"key":     func(r *boutiquev1.PlaceOrderRequest) { r.IdempotencyKey = strings.Repeat("k", 257) },
	} {
		order := request(boutiquev1.Mode_SYNC, "key")
		spoil(order)
		if _, err := client.PlaceOrder(soon(t), order); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// waiter tells when somebody begins to wait for its end.
type waiter struct {
	context.Context
	waits func()
}

func (w waiter) Done() <-chan struct{} {
	w.waits()
	return w.Context.Done()
}

func TestWhoHasTimeLeftDoesNotHearThatTheFirstHadNone(t *testing.T) {
	for _, code := range []codes.Code{codes.Canceled, codes.DeadlineExceeded} {
		o := newOnce(3)
		second := make(chan error, 1)
		o.do(soon(t), "key", func() (*boutiquev1.PlaceOrderResponse, error) {
			var once sync.Once
			waits := make(chan struct{})
			ctx := waiter{soon(t), func() { once.Do(func() { close(waits) }) }}
			go func() {
				_, err := o.do(ctx, "key", func() (*boutiquev1.PlaceOrderResponse, error) { return nil, nil })
				second <- err
			}()
			<-waits
			return nil, status.Error(code, "the first has left")
		})
		if err := <-second; err != nil {
			t.Errorf("%v: the second hears %v", code, err)
		}
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	o := newOnce(3)
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		o.do(context.Background(), key, func() (*boutiquev1.PlaceOrderResponse, error) { return nil, nil })
	}
	if len(o.outcomes) != 3 || o.outcomes["e"] == nil {
		t.Errorf("%d are remembered", len(o.outcomes))
	}
}

func TestMoneyIsRoundedAsOnThePageAndNotLost(t *testing.T) {
	money := func(code string, units int64, nanos int32) *boutiquev1.Money {
		return &boutiquev1.Money{CurrencyCode: code, Units: units, Nanos: nanos}
	}
	for _, each := range []struct{ got, want *boutiquev1.Money }{
		{payable(money("EUR", 11, 515_000_000)), money("EUR", 11, 520_000_000)},
		{payable(money("EUR", 11, 514_999_999)), money("EUR", 11, 510_000_000)},
		{payable(money("EUR", 11, 995_000_000)), money("EUR", 12, 0)},
		{payable(money("JPY", 99, 500_000_000)), money("JPY", 100, 0)},
		{times(money("EUR", 1, 990_000_000), 10), money("EUR", 19, 900_000_000)},
		{plus(money("EUR", 1, 990_000_000), money("EUR", 0, 20_000_000)), money("EUR", 2, 10_000_000)},
	} {
		if each.got.String() != each.want.String() {
			t.Errorf("%v is not %v", each.got, each.want)
		}
	}
}
