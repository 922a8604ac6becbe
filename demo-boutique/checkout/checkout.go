package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chassis "weir.dev/boutique/chassis/go"
	eventsv1 "weir.dev/boutique/proto/boutique/events/v1"
	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

const (
	// afterwardsTimeout is for what has to be done, or undone, after the caller's deadline, too.
	afterwardsTimeout = 5 * time.Second
	wordBytesMax      = 256
)

var errEmptyCart = status.Error(codes.FailedPrecondition, "there is nothing in the cart")

type checkout struct {
	boutiquev1.UnimplementedCheckoutServer
	cart     boutiquev1.CartClient
	catalog  boutiquev1.CatalogClient
	currency boutiquev1.CurrencyClient
	shipping boutiquev1.ShippingClient
	payment  boutiquev1.PaymentClient
	orderlog eventsv1.OrderLogClient
	once     *once
}

func (c *checkout) PlaceOrder(ctx context.Context, request *boutiquev1.PlaceOrderRequest) (*boutiquev1.PlaceOrderResponse, error) {
	if err := check(request); err != nil {
		return nil, err
	}
	place := c.sync
	if request.Mode == boutiquev1.Mode_EVENT {
		place = c.event
	}
	if request.IdempotencyKey == "" {
		return place(ctx, request, orderID(randomKey()))
	}
	key := request.UserId + "\x00" + request.IdempotencyKey
	return c.once.do(ctx, key, func() (*boutiquev1.PlaceOrderResponse, error) {
		return place(ctx, request, orderID(key))
	})
}

func check(request *boutiquev1.PlaceOrderRequest) error {
	if _, known := boutiquev1.Mode_name[int32(request.Mode)]; !known {
		return status.Errorf(codes.InvalidArgument, "there is no mode %d", request.Mode)
	}
	for name, word := range map[string]string{
		"user_id": request.UserId, "user_currency": request.UserCurrency, "address.country": request.Address.GetCountry(),
	} {
		if word == "" || len(word) > wordBytesMax {
			return status.Errorf(codes.InvalidArgument, "%s has 1 to %d bytes", name, wordBytesMax)
		}
	}
	if len(request.IdempotencyKey) > wordBytesMax {
		return status.Errorf(codes.InvalidArgument, "idempotency_key has at most %d bytes", wordBytesMax)
	}
	return nil
}

// sync does all that an order needs before it answers. Payment and shipping know the order
// by its id, so whoever repeats a call to them does nothing twice. What was begun and cannot be
// finished is taken back; should that fail too, the order is lost: that is the weakness of
// this mode.
func (c *checkout) sync(ctx context.Context, request *boutiquev1.PlaceOrderRequest, id string) (*boutiquev1.PlaceOrderResponse, error) {
	order, err := c.quote(ctx, request)
	if err != nil {
		return nil, err
	}
	order.OrderId = id

	_, err = c.payment.Authorize(ctx, &boutiquev1.AuthorizeRequest{Key: id, Amount: order.Total, CreditCard: request.CreditCard})
	if isRefusal(err) && !c.mayBePaid(id) {
		return nil, failed("payment", err) // nothing was charged, and another card may be tried
	}
	if err != nil {
		return nil, c.takeBack(id, failed("payment", err))
	}
	shipped, err := c.shipping.Ship(ctx, &boutiquev1.ShipRequest{OrderId: id, Address: request.Address, Items: cartItems(order)})
	if err != nil {
		return nil, c.takeBack(id, failed("shipping", err))
	}
	order.ShippingTrackingId = shipped.TrackingId
	c.emptyCart(request.UserId)
	return &boutiquev1.PlaceOrderResponse{Order: order, State: boutiquev1.OrderState_CONFIRMED}, nil
}

// event writes down that the order was placed, and leaves the rest to those who read that.
func (c *checkout) event(ctx context.Context, request *boutiquev1.PlaceOrderRequest, id string) (*boutiquev1.PlaceOrderResponse, error) {
	if before, err := c.again(ctx, request, id); before != nil || err != nil {
		return before, err
	}
	order, err := c.quote(ctx, request)
	if errors.Is(err, errEmptyCart) {
		// Another process may have placed this very order meanwhile. Whoever heard of an empty cart would fill
		// it again, and pay for both.
		if before, err := c.again(ctx, request, id); before != nil || err != nil {
			return before, err
		}
	}
	if err != nil {
		return nil, err
	}
	order.OrderId = id
	placed := &eventsv1.OrderEvent{
		TraceId:     chassis.TraceID(ctx),
		CausationId: "PlaceOrder",
		// The order's id comes from the key of the request: one placing is all that it can have.
		IdempotencyKey: "placed",
		Fact:           &eventsv1.OrderEvent_OrderPlaced{OrderPlaced: placedFact(request, order)},
	}
	if _, err := c.orderlog.Append(ctx, &eventsv1.AppendRequest{OrderId: id, Events: []*eventsv1.OrderEvent{placed}}); err != nil {
		return nil, failed("orderlog", err)
	}
	c.emptyCart(request.UserId)
	return &boutiquev1.PlaceOrderResponse{Order: order, State: boutiquev1.OrderState_ACCEPTED}, nil
}

// emptyCart may fail: the order stands, and the visitor can empty a cart by hand. It is no matter of whether the caller
// is still there.
func (c *checkout) emptyCart(user string) {
	ctx, cancel := chassis.Detached(afterwardsTimeout)
	defer cancel()
	if _, err := c.cart.EmptyCart(ctx, &boutiquev1.EmptyCartRequest{UserId: user}); err != nil {
		log.Printf("an order was placed and its cart not emptied: %v", err)
	}
}

// mayBePaid says whether an order that payment refuses has a past: a process that died may have charged it, at another
// price, and known nothing more of it. To be refunded is a past too: its key is spent. Who cannot be asked may hide one.
func (c *checkout) mayBePaid(id string) bool {
	ctx, cancel := chassis.Detached(afterwardsTimeout)
	defer cancel()
	past, err := c.payment.CountCharges(ctx, &boutiquev1.CountChargesRequest{Key: id})
	return err != nil || past.Charges > 0 || past.Refunds > 0
}

// takeBack undoes whatever the order may have done, and says why it came to nothing. Both are asked at once, and each
// has all of the time: a shipping that hangs keeps nobody's money.
func (c *checkout) takeBack(id string, why error) error {
	var both sync.WaitGroup
	undo := func(done string, ask func(context.Context) error) {
		defer both.Done()
		ctx, cancel := chassis.Detached(afterwardsTimeout)
		defer cancel()
		if err := ask(ctx); err != nil {
			log.Printf("order %s may have been %s: %v", id, done, err)
		}
	}
	both.Add(2)
	go undo("sent", func(ctx context.Context) error {
		_, err := c.shipping.Cancel(ctx, &boutiquev1.CancelRequest{OrderId: id})
		return err
	})
	go undo("charged", func(ctx context.Context) error {
		_, err := c.payment.Refund(ctx, &boutiquev1.RefundRequest{Key: id})
		return err
	})
	both.Wait()
	return status.Errorf(codes.Aborted, "the order was taken back; %s", status.Convert(why).Message())
}

// isRefusal says whether the callee understood, and did nothing.
func isRefusal(err error) bool {
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.InvalidArgument:
		return true
	}
	return false
}

func cartItems(order *boutiquev1.OrderResult) []*boutiquev1.CartItem {
	items := make([]*boutiquev1.CartItem, len(order.Items))
	for i, each := range order.Items {
		items[i] = each.Item
	}
	return items
}

func placedFact(request *boutiquev1.PlaceOrderRequest, order *boutiquev1.OrderResult) *eventsv1.OrderPlaced {
	to, card := request.Address, request.CreditCard
	placed := &eventsv1.OrderPlaced{
		UserId:       request.UserId,
		CurrencyCode: request.UserCurrency,
		Email:        request.Email,
		Address: &eventsv1.Address{
			StreetAddress: to.StreetAddress, City: to.City, State: to.State, Country: to.Country, ZipCode: to.ZipCode,
		},
		CreditCard: &eventsv1.CreditCard{
			CreditCardNumber:          card.GetCreditCardNumber(),
			CreditCardCvv:             card.GetCreditCardCvv(),
			CreditCardExpirationYear:  card.GetCreditCardExpirationYear(),
			CreditCardExpirationMonth: card.GetCreditCardExpirationMonth(),
		},
		ShippingCost: order.ShippingCost,
		Total:        order.Total,
	}
	for _, each := range order.Items {
		item := &eventsv1.OrderItem{ProductId: each.Item.ProductId, Quantity: each.Item.Quantity, Cost: each.Cost}
		placed.Items = append(placed.Items, item)
	}
	return placed
}

// orderID is the same for the same key, also in another process, and shaped like a UUID.
func orderID(key string) string {
	sum := sha256.Sum256([]byte(key))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

func randomKey() string {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		panic(err) // the kernel always has some
	}
	return string(key[:])
}
