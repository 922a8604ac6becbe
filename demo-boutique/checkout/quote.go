package main

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

const baseCurrency = "USD"

// quote is what is in the cart and what it costs, in the visitor's currency: the same in
// both modes, and nothing has happened yet.
func (c *checkout) quote(ctx context.Context, request *boutiquev1.PlaceOrderRequest) (*boutiquev1.OrderResult, error) {
	cart, err := c.cart.GetCart(ctx, &boutiquev1.GetCartRequest{UserId: request.UserId})
	if err != nil {
		return nil, failed("cart", err)
	}
	var items []*boutiquev1.CartItem
	var dollars []*boutiquev1.Money // for one of each item, and at last for shipping
	for _, item := range cart.Items {
		product, err := c.catalog.GetProduct(ctx, &boutiquev1.GetProductRequest{Id: item.ProductId})
		if status.Code(err) == codes.NotFound {
			continue // no longer sold: it is not on the cart's page either
		}
		if err != nil {
			return nil, failed("catalog", err)
		}
		items, dollars = append(items, item), append(dollars, product.PriceUsd)
	}
	if len(items) == 0 {
		return nil, errEmptyCart
	}
	shipped, err := c.shipping.GetQuote(ctx, &boutiquev1.GetQuoteRequest{Address: request.Address, Items: items})
	if err != nil {
		return nil, failed("shipping", err)
	}
	prices, err := c.converted(ctx, append(dollars, shipped.CostUsd), request.UserCurrency)
	if err != nil {
		return nil, err
	}

	shippingCost := payable(prices[len(items)])
	order := &boutiquev1.OrderResult{ShippingCost: shippingCost, ShippingAddress: request.Address, Total: shippingCost}
	for i, item := range items {
		cost := times(payable(prices[i]), item.Quantity)
		order.Items = append(order.Items, &boutiquev1.OrderItem{Item: item, Cost: cost})
		order.Total = plus(order.Total, cost)
	}
	return order, nil
}

func (c *checkout) converted(ctx context.Context, dollars []*boutiquev1.Money, currency string) ([]*boutiquev1.Money, error) {
	if currency == baseCurrency {
		return dollars, nil
	}
	answer, err := c.currency.ConvertBatch(ctx, &boutiquev1.ConvertBatchRequest{From: dollars, ToCode: currency})
	if err != nil {
		return nil, failed("currency", err)
	}
	if len(answer.Converted) != len(dollars) {
		return nil, status.Error(codes.Internal, "currency: not as many amounts as were asked")
	}
	return answer.Converted, nil
}

// failed says who did, and keeps the code: it tells the caller what can be done about it.
func failed(dependency string, err error) error {
	return status.Errorf(status.Code(err), "%s: %s", dependency, status.Convert(err).Message())
}
