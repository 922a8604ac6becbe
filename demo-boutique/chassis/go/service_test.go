package chassis

import (
	"context"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// slow answers GetProduct when told to.
type slow struct {
	boutiquev1.UnimplementedCatalogServer
	entered, leave chan struct{}
}

func (s slow) GetProduct(context.Context, *boutiquev1.GetProductRequest) (*boutiquev1.Product, error) {
	s.entered <- struct{}{}
	<-s.leave
	return &boutiquev1.Product{Id: "done"}, nil
}

type running struct {
	slow
	api, knobs *grpc.ClientConn
	signals    chan os.Signal
	stopped    chan error
}

func run(t *testing.T) running {
	t.Helper()
	r := running{
		slow:    slow{entered: make(chan struct{}, 1), leave: make(chan struct{}, 1)},
		signals: make(chan os.Signal, 2),
		stopped: make(chan error, 1),
	}
	listen := func() (net.Listener, *grpc.ClientConn) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return listener, conn
	}
	api, apiConn := listen()
	knobs, knobsConn := listen()
	r.api, r.knobs = apiConn, knobsConn
	faults, err := NewFaults(&boutiquev1.Knobs{})
	if err != nil {
		t.Fatal(err)
	}
	service := New("test", faults, 5*time.Second, func(server *grpc.Server) {
		boutiquev1.RegisterCatalogServer(server, r.slow)
	})
	go func() { r.stopped <- service.Serve(api, knobs, r.signals) }()
	return r
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestSigtermFinishesWhatRunsEndsTheWatchersAndRefusesTheRest(t *testing.T) {
	r := run(t)
	health, catalog := healthv1.NewHealthClient(r.api), boutiquev1.NewCatalogClient(r.api)
	watcher, err := health.Watch(soon(t), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if now, err := watcher.Recv(); err != nil || now.Status != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("got %v, %v", now, err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := catalog.GetProduct(soon(t), &boutiquev1.GetProductRequest{})
		answered <- err
	}()
	<-r.entered

	r.signals <- syscall.SIGTERM
	for err == nil { // the watcher may still hear NOT_SERVING, then its stream ends
		_, err = watcher.Recv()
	}
	for refused := false; !refused; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", r.api.Target())
		if refused = err != nil; !refused {
			conn.Close()
		}
	}
	select {
	case <-r.stopped:
		t.Fatal("stopped with a call in flight")
	default:
	}
	r.leave <- struct{}{}
	if err := <-answered; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := <-r.stopped; err != nil {
		t.Error(err)
	}
}

func TestKnobsSetAtRuntimeTouchTheApiButNotItsHealth(t *testing.T) {
	r := run(t)
	chaos := boutiquev1.NewChaosClient(r.knobs)
	now, err := chaos.Set(soon(t), &boutiquev1.Knobs{ErrorPct: 100, Code: int32(codes.Internal)})
	if err != nil || now.ErrorPct != 100 {
		t.Fatalf("got %v, %v", now, err)
	}
	if _, err := boutiquev1.NewCatalogClient(r.api).ListProducts(soon(t), &boutiquev1.ListProductsRequest{}); status.Code(err) != codes.Internal {
		t.Errorf("the api: %v", err)
	}
	if _, err := healthv1.NewHealthClient(r.api).Check(soon(t), &healthv1.HealthCheckRequest{Service: "boutique.v1.Catalog"}); err != nil {
		t.Errorf("its health: %v", err)
	}
	if _, err := chaos.Set(soon(t), &boutiquev1.Knobs{ErrorPct: 101}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("nonsense: %v", err)
	}
}

func TestTheKnobsAreNotOnTheMainPort(t *testing.T) {
	_, err := boutiquev1.NewChaosClient(run(t).api).Set(soon(t), &boutiquev1.Knobs{})
	if status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
}
