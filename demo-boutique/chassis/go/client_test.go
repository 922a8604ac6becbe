package chassis

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// onward answers GetProduct with the traceparent that came along and the time that is left.
type onward struct {
	boutiquev1.UnimplementedCatalogServer
}

func (onward) GetProduct(ctx context.Context, _ *boutiquev1.GetProductRequest) (*boutiquev1.Product, error) {
	until, _ := ctx.Deadline()
	left := time.Until(until).Round(time.Second).String()
	return &boutiquev1.Product{Id: strings.Join(metadata.ValueFromIncomingContext(ctx, "traceparent"), ","), Name: left}, nil
}

// WatchPrices tells the same once, as a stream.
func (onward) WatchPrices(_ *boutiquev1.WatchPricesRequest, stream boutiquev1.Catalog_WatchPricesServer) error {
	traces := strings.Join(metadata.ValueFromIncomingContext(stream.Context(), "traceparent"), ",")
	return stream.Send(&boutiquev1.PriceTick{ProductId: traces})
}

func dialOnward(t *testing.T, timeout time.Duration) boutiquev1.CatalogClient {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	boutiquev1.RegisterCatalogServer(server, onward{})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := Dial(listener.Addr().String(), timeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return boutiquev1.NewCatalogClient(conn)
}

// incoming is the context of a call that came in with this traceparent.
func incoming(traceparent string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.Pairs("traceparent", traceparent, "cookie", "secret"))
}

func TestOnlyATraceparentGoesAlong(t *testing.T) {
	client := dialOnward(t, 10*time.Second)
	for sent, want := range map[string]string{trace: trace, "nonsense": "", trace + "0": ""} {
		got, err := client.GetProduct(incoming(sent), &boutiquev1.GetProductRequest{})
		if err != nil || got.Id != want {
			t.Errorf("%q became %q, %v", sent, got.GetId(), err)
		}
	}
	ticks, err := client.WatchPrices(incoming(trace), &boutiquev1.WatchPricesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if tick, err := ticks.Recv(); err != nil || tick.ProductId != trace {
		t.Errorf("a stream has %q, %v", tick.GetProductId(), err)
	}
	if got := TraceID(incoming(trace)); got != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("its id is %q", got)
	}
}

func TestACallEndsWithItsCallersDeadlineOrTheTimeoutWhicheverIsEarlier(t *testing.T) {
	client := dialOnward(t, 40*time.Second)
	for deadline, want := range map[time.Duration]string{20 * time.Second: "20s", time.Hour: "40s"} {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		got, err := client.GetProduct(ctx, &boutiquev1.GetProductRequest{})
		if err != nil || got.Name != want {
			t.Errorf("of %v there were %v, %v", deadline, got.GetName(), err)
		}
	}
}

func TestADetachedCallHasTimeOfItsOwnAndNoTraceOfItsCaller(t *testing.T) {
	ctx, cancel := Detached(5 * time.Second)
	defer cancel()
	got, err := dialOnward(t, 10*time.Second).GetProduct(ctx, &boutiquev1.GetProductRequest{})
	if err != nil || got.Id != "" || got.Name != "5s" {
		t.Errorf("got %v, %v", got, err)
	}
}
