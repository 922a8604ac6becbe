package main

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

type catalog struct {
	boutiquev1.UnimplementedCatalogServer
	products products
}

func (c *catalog) ListProducts(context.Context, *boutiquev1.ListProductsRequest) (*boutiquev1.ListProductsResponse, error) {
	return &boutiquev1.ListProductsResponse{Products: c.products}, nil
}

func (c *catalog) GetProduct(_ context.Context, request *boutiquev1.GetProductRequest) (*boutiquev1.Product, error) {
	if product := c.products.find(request.Id); product != nil {
		return product, nil
	}
	return nil, status.Errorf(codes.NotFound, "nobody sells %q here", request.Id)
}

func (c *catalog) SearchProducts(_ context.Context, request *boutiquev1.SearchProductsRequest) (*boutiquev1.SearchProductsResponse, error) {
	return &boutiquev1.SearchProductsResponse{Results: c.products.search(request.Query)}, nil
}

// WatchPrices keeps no queue for its caller: while one does not read, Send waits, and the
// next tick has the price of its own time.
func (c *catalog) WatchPrices(request *boutiquev1.WatchPricesRequest, stream boutiquev1.Catalog_WatchPricesServer) error {
	interval := time.Duration(request.IntervalMs) * time.Millisecond
	switch {
	case interval == 0:
		interval = time.Second
	case interval < 10*time.Millisecond:
		return status.Error(codes.InvalidArgument, "interval_ms has to be 0 or at least 10")
	}
	watched := c.products.only(request.ProductIds)
	if len(watched) == 0 {
		return status.Error(codes.NotFound, "nobody sells any of these here")
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for now := time.Now(); ; {
		for _, product := range watched {
			if err := stream.Send(tick(product, now)); err != nil {
				return err
			}
		}
		select {
		case now = <-ticker.C:
		case <-stream.Context().Done():
			return nil // the caller left, or the service drains
		}
	}
}
