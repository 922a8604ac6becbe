package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eventsv1 "weir.dev/boutique/proto/boutique/events/v1"
	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// lookTimeout is for one fact of the log.
const lookTimeout = 3 * time.Second

// again answers whoever asks once more after an order was written down and its cart emptied, and the
// answer was lost with the process that had it: the order as the log has it. Where there is none, err stands.
func (c *checkout) again(ctx context.Context, request *boutiquev1.PlaceOrderRequest, id string, err error) (*boutiquev1.PlaceOrderResponse, error) {
	if request.IdempotencyKey == "" || status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != emptyCart {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	facts, failure := c.orderlog.Read(ctx, &eventsv1.ReadRequest{OrderId: id, Limit: 1})
	if failure != nil {
		return nil, failed("orderlog", failure)
	}
	first, failure := facts.Recv()
	switch {
	case errors.Is(failure, io.EOF) || failure == nil && first.GetOrderPlaced() == nil:
		return nil, err
	case failure != nil:
		return nil, failed("orderlog", failure)
	}
	return &boutiquev1.PlaceOrderResponse{Order: placedOrder(id, first.GetOrderPlaced()), State: boutiquev1.OrderState_ACCEPTED}, nil
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
