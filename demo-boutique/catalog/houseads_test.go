package main

import (
	"strings"
	"testing"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

func TestAHouseAdGoesWithWhatTheVisitorLooksAtAndLeadsToAProduct(t *testing.T) {
	client := boutiquev1.NewAdsClient(dial(t))
	for category, fits := range map[string]bool{"clothing": true, "kitchen": true, "nothing-like-it": false, "": false} {
		answer, err := client.GetAds(soon(t), &boutiquev1.GetAdsRequest{ContextKeys: []string{category}})
		if err != nil || len(answer.Ads) != 1 {
			t.Fatalf("%q: %v, %v", category, answer, err)
		}
		product := stock().find(strings.TrimPrefix(answer.Ads[0].RedirectUrl, "/product/"))
		if product == nil || !strings.Contains(answer.Ads[0].Text, product.Name) {
			t.Fatalf("%q: %v is no product's", category, answer.Ads[0])
		}
		if shareAny(product.Categories, []string{category}) != fits {
			t.Errorf("%q: %v", category, product.Categories)
		}
	}
}
