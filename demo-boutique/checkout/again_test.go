package main

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

func TestWhoAsksAgainAfterCheckoutDiedHearsOfTheOrderThatWasPlaced(t *testing.T) {
	n, client := open(t)
	first, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_EVENT, "key"))
	if err != nil || n.cart != nil {
		t.Fatal(first, err)
	}
	other := n.checkout(t, n.conn)
	again, err := other.PlaceOrder(soon(t), request(boutiquev1.Mode_EVENT, "key"))
	if err != nil || again.String() != first.String() {
		t.Errorf("first %v, again %v, %v", first, again, err)
	}
	if _, err := other.PlaceOrder(soon(t), request(boutiquev1.Mode_EVENT, "another")); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("an empty cart and a new key: %v", err)
	}
	n.fail("Read", codes.Unavailable)
	if _, err := n.checkout(t, n.conn).PlaceOrder(soon(t), request(boutiquev1.Mode_EVENT, "key")); status.Code(err) != codes.Unavailable {
		t.Errorf("while nobody knows whether it was placed: %v", err)
	}
}

// A form that is sent again, out of the browser's history say, is the order of before.
func TestWhoAsksAgainLosesNothingThatWasPutIntoTheCartSince(t *testing.T) {
	n, client := open(t)
	first, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_EVENT, "key"))
	if err != nil {
		t.Fatal(err)
	}
	n.heal()
	n.cart = []*boutiquev1.CartItem{{ProductId: "mug", Quantity: 2}}
	again, err := n.checkout(t, n.conn).PlaceOrder(soon(t), request(boutiquev1.Mode_EVENT, "key"))
	if err != nil || again.String() != first.String() {
		t.Errorf("first %v, again %v, %v", first, again, err)
	}
	if n.asked("EmptyCart") != 0 || len(n.cart) != 1 {
		t.Errorf("the cart has %v", n.cart)
	}
	// That of the order itself is emptied, should that not have been done.
	n.cart[0].Quantity = 3
	if _, err := n.checkout(t, n.conn).PlaceOrder(soon(t), request(boutiquev1.Mode_EVENT, "key")); err != nil || n.cart != nil {
		t.Errorf("the cart has %v, %v", n.cart, err)
	}
}

// The form was sent twice, and came to two processes: one of them finds the cart that the other has emptied.
func TestAnOrderThatAnotherProcessPlacesMeanwhileIsNoEmptyCart(t *testing.T) {
	n, client := open(t)
	full := n.cart
	first, err := client.PlaceOrder(soon(t), request(boutiquev1.Mode_EVENT, "key"))
	if err != nil {
		t.Fatal(err)
	}
	// As if that were still to come, until the other has looked into the log.
	placed := n.appended
	n.appended, n.cart = nil, full
	looked := n.holds("GetCart")
	go func() {
		<-looked
		n.mu.Lock()
		n.appended, n.cart = placed, nil
		n.mu.Unlock()
		n.release("GetCart")
	}()
	second, err := n.checkout(t, n.conn).PlaceOrder(soon(t), request(boutiquev1.Mode_EVENT, "key"))
	if err != nil || second.String() != first.String() {
		t.Errorf("first %v, second %v, %v", first, second, err)
	}
}
