package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

var (
	background = context.Background()
	home       = &boutiquev1.Address{StreetAddress: "1 Mill Lane", City: "Weir", Country: "England", ZipCode: 1}
)

func service() *shipping { return &shipping{parcels: newParcels(3)} }

func ship(s *shipping, order string) (string, error) {
	sent, err := s.Ship(background, &boutiquev1.ShipRequest{OrderId: order, Address: home})
	return sent.GetTrackingId(), err
}

func cancel(t *testing.T, s *shipping, order string) string {
	t.Helper()
	cancelled, err := s.Cancel(background, &boutiquev1.CancelRequest{OrderId: order})
	if err != nil {
		t.Fatal(err)
	}
	return cancelled.TrackingId
}

func TestAQuoteGrowsWithWhatThereIsToCarry(t *testing.T) {
	for quantity, want := range map[int32]string{0: "0.0", 1: "4.750000000", 3: "6.250000000"} {
		quote, err := service().GetQuote(background, &boutiquev1.GetQuoteRequest{Items: []*boutiquev1.CartItem{{Quantity: quantity}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%d.%d", quote.CostUsd.Units, quote.CostUsd.Nanos); got != want {
			t.Errorf("%d pieces cost %s, not %s", quantity, got, want)
		}
	}
}

func TestWhatNobodyCanCarryHasNoQuote(t *testing.T) {
	for _, items := range [][]*boutiquev1.CartItem{{{Quantity: -1}}, {{Quantity: 2147483647}, {Quantity: 2147483647}}} {
		if quote, err := service().GetQuote(background, &boutiquev1.GetQuoteRequest{Items: items}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v, %v", items, quote, err)
		}
	}
}

func TestAnOrderIsOneParcelHoweverOftenItIsSentAndByWhom(t *testing.T) {
	s := service()
	first, err := ship(s, "order-1")
	if err != nil {
		t.Fatal(err)
	}
	again, _ := ship(s, "order-1")
	elsewhere, _ := ship(service(), "order-1")
	other, _ := ship(s, "order-2")
	if first != again || first != elsewhere || first == other || first == "" {
		t.Errorf("got %q, %q, %q; another order %q", first, again, elsewhere, other)
	}
}

func TestAShipOrderIsAParcelEachTime(t *testing.T) {
	s, seen := service(), map[string]bool{}
	for i := 0; i < 10; i++ {
		sent, err := s.ShipOrder(background, &boutiquev1.ShipOrderRequest{Address: home})
		if err != nil {
			t.Fatal(err)
		}
		seen[sent.TrackingId] = true
	}
	if len(seen) != 10 {
		t.Errorf("%d parcels", len(seen))
	}
}

func TestACancelledParcelComesBackAndIsNotSentAgain(t *testing.T) {
	s := service()
	sent, _ := ship(s, "order-1")
	for i := 0; i < 2; i++ {
		if back := cancel(t, s, "order-1"); back != sent {
			t.Errorf("%q was sent, %q came back", sent, back)
		}
	}
	if _, err := ship(s, "order-1"); status.Code(err) != codes.FailedPrecondition {
		t.Error(err)
	}
}

// Whoever gave up on a Ship cancels it; the Ship may still be under way.
func TestAShipThatComesAfterItsCancelIsRefused(t *testing.T) {
	s := service()
	if back := cancel(t, s, "order-1"); back != "" {
		t.Errorf("%q came back, and nothing had been sent", back)
	}
	if _, err := ship(s, "order-1"); status.Code(err) != codes.FailedPrecondition {
		t.Error(err)
	}
}

func TestWhatIsRememberedIsBoundedAndTheLatest(t *testing.T) {
	s := service()
	for i := 0; i < 10; i++ {
		cancel(t, s, fmt.Sprint("order-", i))
	}
	if len(s.parcels.known) != 3 {
		t.Errorf("%d orders are remembered", len(s.parcels.known))
	}
	if _, err := ship(s, "order-7"); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("one of the last three is forgotten: %v", err)
	}
}

func TestAnAddressIsNeededAndNobodyDeliversToAtlantis(t *testing.T) {
	for want, request := range map[codes.Code]*boutiquev1.ShipRequest{
		codes.InvalidArgument:    {OrderId: "a"},
		codes.FailedPrecondition: {OrderId: "a", Address: &boutiquev1.Address{Country: "Atlantis"}},
		codes.OK:                 {OrderId: "a", Address: home},
	} {
		if _, err := service().Ship(background, request); status.Code(err) != want {
			t.Errorf("%v: %v", request, err)
		}
	}
	for _, order := range []string{"", strings.Repeat("o", 129)} {
		if _, err := ship(service(), order); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", order, err)
		}
	}
}

func TestItAlsoAnswersUnderTheNameOfOnlineBoutique(t *testing.T) {
	server := grpc.NewServer()
	register(server)
	for _, name := range []string{"boutique.v1.Shipping", "hipstershop.ShippingService"} {
		if _, known := server.GetServiceInfo()[name]; !known {
			t.Errorf("there is no %s", name)
		}
	}
}
