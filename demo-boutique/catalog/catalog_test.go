package main

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// dial starts the service on a free port and connects to it.
func dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestEveryProductHasAnIdAPictureAndAPriceInDollars(t *testing.T) {
	seen := map[string]bool{}
	for _, product := range stock() {
		if seen[product.Id] {
			t.Errorf("%s is sold twice", product.Id)
		}
		seen[product.Id] = true
		price := product.PriceUsd
		if product.Name == "" || product.Picture == "" || price.CurrencyCode != "USD" || price.Units <= 0 || price.Nanos < 0 {
			t.Errorf("incomplete: %v", product)
		}
	}
	if len(seen) < 10 {
		t.Errorf("a shop with %d products shows no N+1 problem", len(seen))
	}
}

func TestAProductIsFoundByItsIdAndAnUnknownIdIsNotFound(t *testing.T) {
	client := boutiquev1.NewCatalogClient(dial(t))
	mug, err := client.GetProduct(soon(t), &boutiquev1.GetProductRequest{Id: "enamel-mug"})
	if err != nil || mug.Name != "Enamel mug" {
		t.Fatalf("got %v, %v", mug, err)
	}
	_, err = client.GetProduct(soon(t), &boutiquev1.GetProductRequest{Id: "anvil"})
	if status.Code(err) != codes.NotFound {
		t.Fatalf("got %v", err)
	}
}

func TestASearchIgnoresCaseAndLooksIntoDescriptions(t *testing.T) {
	client := boutiquev1.NewCatalogClient(dial(t))
	found, err := client.SearchProducts(soon(t), &boutiquev1.SearchProductsRequest{Query: " COFFEE "})
	if err != nil || len(found.Results) != 1 || found.Results[0].Id != "enamel-mug" {
		t.Fatalf("got %v, %v", found, err)
	}
}

func TestTheApiAnswersUnderTheNameOfOnlineBoutiqueToo(t *testing.T) {
	var list boutiquev1.ListProductsResponse
	err := dial(t).Invoke(soon(t), "/hipstershop.ProductCatalogService/ListProducts", &boutiquev1.ListProductsRequest{}, &list)
	if err != nil || len(list.Products) != len(stock()) {
		t.Fatalf("got %d products, %v", len(list.Products), err)
	}
}

func TestAWatcherGetsOneTickAProductAndInterval(t *testing.T) {
	client := boutiquev1.NewCatalogClient(dial(t))
	request := &boutiquev1.WatchPricesRequest{ProductIds: []string{"oak-stool", "river-boots"}, IntervalMs: 10}
	ticks, err := client.WatchPrices(soon(t), request)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"oak-stool", "river-boots", "oak-stool", "river-boots"} {
		tick, err := ticks.Recv()
		if err != nil || tick.ProductId != want {
			t.Fatalf("tick %d: got %v, %v; want one of %s", i, tick, err, want)
		}
	}
}

func TestAWatcherOfNothingOrInAHurryIsRefused(t *testing.T) {
	client := boutiquev1.NewCatalogClient(dial(t))
	for request, want := range map[*boutiquev1.WatchPricesRequest]codes.Code{
		{ProductIds: []string{"anvil"}}: codes.NotFound,
		{IntervalMs: 1}:                 codes.InvalidArgument,
	} {
		ticks, err := client.WatchPrices(soon(t), request)
		if err == nil {
			_, err = ticks.Recv()
		}
		if status.Code(err) != want {
			t.Errorf("%v: got %v, want %v", request, err, want)
		}
	}
}

func TestASpotPriceDependsOnNothingButProductAndMomentAndStaysNearTheListPrice(t *testing.T) {
	boots := stock().find("river-boots")
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	prices := map[int64]bool{}
	for i := 0; i < 90; i++ {
		at := start.Add(time.Duration(i) * time.Second)
		one, other := tick(boots, at), tick(boots, at)
		if one.String() != other.String() {
			t.Fatalf("two replicas differ: %v and %v", one, other)
		}
		cents := one.PriceUsd.Units*100 + int64(one.PriceUsd.Nanos)/centNanos
		if cents < 8505 || cents > 9215 { // 88.60 ± 4 %
			t.Errorf("%d cents is too far from 8860", cents)
		}
		prices[cents] = true
	}
	if len(prices) < 50 {
		t.Errorf("only %d different prices in a period", len(prices))
	}
}
