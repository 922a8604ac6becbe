package main

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	chassis "weir.dev/boutique/chassis/go"
	eventsv1 "weir.dev/boutique/proto/boutique/events/v1"
	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// neighbours stand in for all that checkout calls, and write down what they were asked.
type neighbours struct {
	boutiquev1.UnimplementedCartServer
	boutiquev1.UnimplementedCatalogServer
	boutiquev1.UnimplementedCurrencyServer
	boutiquev1.UnimplementedShippingServer
	boutiquev1.UnimplementedPaymentServer
	eventsv1.UnimplementedOrderLogServer

	mu       sync.Mutex
	calls    []string
	traces   map[string]bool
	detached map[string]bool // the traces of what is done whether the caller is there or not
	deadline time.Duration   // the longest that any other call was given
	fails    map[string]error
	hold     map[string]chan struct{} // methods that wait until it is closed, or their caller leaves
	entered  map[string]chan struct{} // closed when such a method is called
	cart     []*boutiquev1.CartItem
	charged  *boutiquev1.AuthorizeRequest
	refunds  int32
	appended *eventsv1.AppendRequest
	conn     *grpc.ClientConn // to all of them
}

func (n *neighbours) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	method := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	n.mu.Lock()
	n.calls = append(n.calls, method)
	traces := n.traces
	switch method {
	case "EmptyCart", "CountCharges", "Cancel", "Refund":
		traces = n.detached
	default:
		if until, has := ctx.Deadline(); has && time.Until(until) > n.deadline {
			n.deadline = time.Until(until)
		}
	}
	traces[strings.Join(metadata.ValueFromIncomingContext(ctx, "traceparent"), ",")] = true
	err, hold := n.fails[method], n.hold[method]
	if entered := n.entered[method]; entered != nil {
		close(entered)
		delete(n.entered, method)
	}
	n.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done(): // nothing is done for who has left: an answer could still overtake the end of its call
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	if err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (n *neighbours) GetCart(context.Context, *boutiquev1.GetCartRequest) (*boutiquev1.GetCartResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &boutiquev1.GetCartResponse{Items: n.cart}, nil
}

func (n *neighbours) EmptyCart(context.Context, *boutiquev1.EmptyCartRequest) (*boutiquev1.EmptyCartResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cart = nil
	return &boutiquev1.EmptyCartResponse{}, nil
}

func (n *neighbours) GetProduct(_ context.Context, request *boutiquev1.GetProductRequest) (*boutiquev1.Product, error) {
	if request.Id != "mug" {
		return nil, status.Error(codes.NotFound, "nobody sells that")
	}
	return &boutiquev1.Product{Id: "mug", PriceUsd: &boutiquev1.Money{CurrencyCode: "USD", Units: 10}}, nil
}

// ConvertBatch: a dollar is a half and a bit.
func (n *neighbours) ConvertBatch(_ context.Context, request *boutiquev1.ConvertBatchRequest) (*boutiquev1.ConvertBatchResponse, error) {
	answer := &boutiquev1.ConvertBatchResponse{}
	for _, from := range request.From {
		half := &boutiquev1.Money{CurrencyCode: request.ToCode, Units: from.Units / 2, Nanos: 994_999_999}
		answer.Converted = append(answer.Converted, half)
	}
	return answer, nil
}

func (n *neighbours) GetQuote(context.Context, *boutiquev1.GetQuoteRequest) (*boutiquev1.GetQuoteResponse, error) {
	return &boutiquev1.GetQuoteResponse{CostUsd: &boutiquev1.Money{CurrencyCode: "USD", Units: 4}}, nil
}

// Authorize knows the latest key, and which amount it stands for.
func (n *neighbours) Authorize(_ context.Context, request *boutiquev1.AuthorizeRequest) (*boutiquev1.AuthorizeResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.charged.GetKey() == request.Key && (n.refunds > 0 || n.charged.Amount.String() != request.Amount.String()) {
		return nil, status.Error(codes.FailedPrecondition, "this key was used")
	}
	n.charged = request
	return &boutiquev1.AuthorizeResponse{TransactionId: "paid"}, nil
}

func (n *neighbours) Refund(context.Context, *boutiquev1.RefundRequest) (*boutiquev1.RefundResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refunds = 1
	return &boutiquev1.RefundResponse{}, nil
}

func (n *neighbours) CountCharges(_ context.Context, request *boutiquev1.CountChargesRequest) (*boutiquev1.CountChargesResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.charged.GetKey() != request.Key {
		return &boutiquev1.CountChargesResponse{}, nil
	}
	return &boutiquev1.CountChargesResponse{Charges: 1, Refunds: n.refunds}, nil
}

func (n *neighbours) Ship(context.Context, *boutiquev1.ShipRequest) (*boutiquev1.ShipResponse, error) {
	return &boutiquev1.ShipResponse{TrackingId: "sent"}, nil
}

func (n *neighbours) Cancel(context.Context, *boutiquev1.CancelRequest) (*boutiquev1.CancelResponse, error) {
	return &boutiquev1.CancelResponse{}, nil
}

func (n *neighbours) Append(_ context.Context, request *eventsv1.AppendRequest) (*eventsv1.AppendResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.appended = request
	return &eventsv1.AppendResponse{FirstSeq: 1, LastSeq: 1}, nil
}

// Read knows the facts of the last append.
func (n *neighbours) Read(request *eventsv1.ReadRequest, stream eventsv1.OrderLog_ReadServer) error {
	n.mu.Lock()
	appended, err := n.appended, n.fails["Read"]
	n.traces[strings.Join(metadata.ValueFromIncomingContext(stream.Context(), "traceparent"), ",")] = true
	n.mu.Unlock()
	if err != nil || appended == nil || appended.OrderId != request.OrderId {
		return err
	}
	return stream.Send(appended.Events[0])
}

func (n *neighbours) fail(method string, code codes.Code) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fails[method] = status.Error(code, "as it was told")
}

// holds makes a method wait, and answers with what tells that it was called.
func (n *neighbours) holds(method string) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	entered := make(chan struct{})
	n.hold[method], n.entered[method] = make(chan struct{}), entered
	return entered
}

// release lets a method go on, and those that come.
func (n *neighbours) release(method string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.hold[method])
	delete(n.hold, method)
}

func (n *neighbours) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fails, n.calls = map[string]error{}, nil
}

// asked counts the calls of a method.
func (n *neighbours) asked(method string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, call := range n.calls {
		if call == method {
			count++
		}
	}
	return count
}

// tracesAre looks whether all calls have the caller's trace, but for those that are made also without him: in a mesh they
// would have what is left of his time.
func (n *neighbours) tracesAre(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.traces) != 1 || !n.traces[traceparent] || len(n.detached) != 1 || !n.detached[""] {
		t.Errorf("the traces are %v, and %v where there is none", n.traces, n.detached)
	}
}

func serve(t *testing.T, register func(*grpc.Server), options ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	register(server)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := chassis.Dial(listener.Addr().String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func open(t *testing.T) (*neighbours, boutiquev1.CheckoutClient) {
	t.Helper()
	n := &neighbours{
		traces: map[string]bool{}, detached: map[string]bool{}, fails: map[string]error{},
		hold: map[string]chan struct{}{}, entered: map[string]chan struct{}{},
		cart: []*boutiquev1.CartItem{{ProductId: "mug", Quantity: 3}, {ProductId: "no longer sold", Quantity: 1}},
	}
	conn := serve(t, func(server *grpc.Server) {
		boutiquev1.RegisterCartServer(server, n)
		boutiquev1.RegisterCatalogServer(server, n)
		boutiquev1.RegisterCurrencyServer(server, n)
		boutiquev1.RegisterShippingServer(server, n)
		boutiquev1.RegisterPaymentServer(server, n)
		eventsv1.RegisterOrderLogServer(server, n)
	}, grpc.UnaryInterceptor(n.intercept))
	return n, n.checkout(t, conn)
}

// checkout starts one that remembers nothing.
func (n *neighbours) checkout(t *testing.T, conn *grpc.ClientConn) boutiquev1.CheckoutClient {
	t.Helper()
	n.conn = conn
	service := &checkout{
		cart: boutiquev1.NewCartClient(conn), catalog: boutiquev1.NewCatalogClient(conn),
		currency: boutiquev1.NewCurrencyClient(conn), shipping: boutiquev1.NewShippingClient(conn),
		payment: boutiquev1.NewPaymentClient(conn), orderlog: eventsv1.NewOrderLogClient(conn),
		once: newOnce(10),
	}
	return boutiquev1.NewCheckoutClient(serve(t, service.register))
}
