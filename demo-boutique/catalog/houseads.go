package main

import (
	"context"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// houseAds are the shop's own, for when nobody pays for the place: the first product of a category that
// the visitor looks at, or of all.
type houseAds struct {
	boutiquev1.UnimplementedAdsServer
	products products
}

func (h houseAds) GetAds(_ context.Context, request *boutiquev1.GetAdsRequest) (*boutiquev1.GetAdsResponse, error) {
	if len(h.products) == 0 {
		return &boutiquev1.GetAdsResponse{}, nil
	}
	product := h.products[0]
	for _, each := range h.products {
		if shareAny(each.Categories, request.ContextKeys) {
			product = each
			break
		}
	}
	ad := &boutiquev1.Ad{RedirectUrl: "/product/" + product.Id, Text: product.Name + ", made to last. From our own shelves."}
	return &boutiquev1.GetAdsResponse{Ads: []*boutiquev1.Ad{ad}}, nil
}

func shareAny(some, others []string) bool {
	for _, one := range some {
		for _, other := range others {
			if one == other {
				return true
			}
		}
	}
	return false
}
