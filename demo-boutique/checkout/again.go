package main

import (
	"context"
	"errors"
	"io"
	"log"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eventsv1 "weir.dev/boutique/proto/boutique/events/v1"
	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// lookTimeout is for one fact of the log.
const lookTimeout = 3 * time.Second

// again is the order that was placed before with the same key, as the log has it, if there is one: whoever asks once
// more may do so because the answer was lost with the process that had it. What is in the cart by now is no part of it.
func (c *checkout) again(ctx context.Context, request *boutiquev1.PlaceOrderRequest, id string) (*boutiquev1.PlaceOrderResponse, error) {
	if request.IdempotencyKey == "" {
		return nil, nil
	}
	placed, err := c.placedBefore(ctx, id)
	if placed == nil || err != nil {
		return nil, err
	}
	order := placedOrder(id, placed)
	c.emptyCartOf(ctx, request.UserId, order)
	return &boutiquev1.PlaceOrderResponse{Order: order, State: boutiquev1.OrderState_ACCEPTED}, nil
}

func (c *checkout) placedBefore(ctx context.Context, id string) (*eventsv1.OrderPlaced, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	facts, err := c.orderlog.Read(ctx, &eventsv1.ReadRequest{OrderId: id, Limit: 1})
	if err != nil {
		return nil, failed("orderlog", err)
	}
	first, err := facts.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, failed("orderlog", err)
	case first.GetOrderPlaced() == nil:
		return nil, status.Errorf(codes.DataLoss, "orderlog: order %s does not begin with its placing", id)
	}
	return first.GetOrderPlaced(), nil
}

// emptyCartOf ends what the process that placed the order may not have come to. A cart with anything else in it
// was filled since, and is kept.
func (c *checkout) emptyCartOf(ctx context.Context, user string, order *boutiquev1.OrderResult) {
	cart, err := c.cart.GetCart(ctx, &boutiquev1.GetCartRequest{UserId: user})
	if err != nil {
		log.Printf("an order was placed before, and its cart is not to be seen: %v", err)
		return
	}
	if len(cart.Items) > 0 && isOf(order, cart.Items) {
		c.emptyCart(user)
	}
}

// isOf says whether all of these items, as many of each, are the order's.
func isOf(order *boutiquev1.OrderResult, items []*boutiquev1.CartItem) bool {
	ordered := map[string]int32{}
	for _, each := range order.Items {
		ordered[each.Item.ProductId] += each.Item.Quantity
	}
	for _, item := range items {
		if ordered[item.ProductId] != item.Quantity {
			return false
		}
	}
	return true
}

func placedOrder(id string, placed *eventsv1.OrderPlaced) *boutiquev1.OrderResult {
	to := placed.Address
	order := &boutiquev1.OrderResult{
		OrderId:      id,
		ShippingCost: placed.ShippingCost,
		ShippingAddress: &boutiquev1.Address{
			StreetAddress: to.GetStreetAddress(), City: to.GetCity(), State: to.GetState(), Country: to.GetCountry(), ZipCode: to.GetZipCode(),
		},
		Total: placed.Total,
	}
	for _, each := range placed.Items {
		item := &boutiquev1.CartItem{ProductId: each.ProductId, Quantity: each.Quantity}
		order.Items = append(order.Items, &boutiquev1.OrderItem{Item: item, Cost: each.Cost})
	}
	return order
}
