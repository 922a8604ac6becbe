package main

import (
	_ "embed"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

//go:embed products.json
var stockJSON []byte

// products is everything the shop sells, in the order in which it is shown. Immutable.
type products []*boutiquev1.Product

// stock is the assortment compiled into the binary.
func stock() products {
	var list boutiquev1.ListProductsResponse
	if err := protojson.Unmarshal(stockJSON, &list); err != nil {
		panic("products.json is compiled in and tested: " + err.Error())
	}
	return list.Products
}

func (p products) find(id string) *boutiquev1.Product {
	for _, product := range p {
		if product.Id == id {
			return product
		}
	}
	return nil
}

func (p products) search(query string) products {
	var hits products
	query = strings.ToLower(strings.TrimSpace(query))
	for _, product := range p {
		text := product.Name + "\n" + product.Description + "\n" + strings.Join(product.Categories, "\n")
		if strings.Contains(strings.ToLower(text), query) {
			hits = append(hits, product)
		}
	}
	return hits
}

// only keeps the products with these ids; none means all.
func (p products) only(ids []string) products {
	if len(ids) == 0 {
		return p
	}
	var kept products
	for _, product := range p {
		for _, id := range ids {
			if product.Id == id {
				kept = append(kept, product)
				break
			}
		}
	}
	return kept
}
