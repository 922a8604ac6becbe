package chassis

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// Service is one gRPC server of the shop: its own API and grpc.health.v1 on the main
// listener, the knobs on another that only the pod itself can reach.
type Service struct {
	name   string
	grace  time.Duration
	faults *Faults
	health *health.Server
	api    *grpc.Server
	knobs  *grpc.Server

	// Ends the streams that never end by themselves, once the service drains.
	draining   context.Context
	endWatches context.CancelFunc
}

// New makes a service whose API is what register adds.
func New(name string, faults *Faults, grace time.Duration, register func(*grpc.Server)) *Service {
	s := &Service{name: name, grace: grace, faults: faults, health: health.NewServer(), knobs: grpc.NewServer()}
	s.draining, s.endWatches = context.WithCancel(context.Background())
	s.api = grpc.NewServer(grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream))
	register(s.api)
	for service := range s.api.GetServiceInfo() {
		s.health.SetServingStatus(service, healthv1.HealthCheckResponse_SERVING)
	}
	healthv1.RegisterHealthServer(s.api, s.health)
	boutiquev1.RegisterChaosServer(s.knobs, chaos{faults: faults})
	return s
}

// Main runs a service on the ports that the environment says (PORT, CHAOS_PORT; 0 switches
// the knobs' port off) until SIGTERM, and does not return.
func Main(name string, port, chaosPort int, register func(*grpc.Server)) {
	log.SetPrefix(name + ": ")
	log.SetFlags(log.Ltime | log.Lmicroseconds | log.Lmsgprefix)

	env := &Env{}
	port, chaosPort = env.Int("PORT", port), env.Int("CHAOS_PORT", chaosPort)
	grace, knobs := env.Seconds("DRAIN_SECONDS", 10), env.Knobs()
	exitOn(env.Err())
	faults, err := NewFaults(knobs)
	exitOn(err)

	// No host: both address families, or the one that there is.
	api, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	exitOn(err)
	var local net.Listener
	if chaosPort != 0 {
		local, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", chaosPort))
		exitOn(err)
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)

	log.Printf("serving on %s, knobs on 127.0.0.1:%d", api.Addr(), chaosPort)
	exitOn(New(name, faults, grace, register).Serve(api, local, signals))
	os.Exit(0)
}

// Serve answers until the first signal, then drains: it accepts nothing more, finishes what
// runs, and returns. A second signal ends the process at once.
func (s *Service) Serve(api, knobs net.Listener, signals <-chan os.Signal) error {
	failed := make(chan error, 2)
	go func() { failed <- s.api.Serve(api) }()
	if knobs != nil {
		go func() { failed <- s.knobs.Serve(knobs) }()
	}
	select {
	case err := <-failed:
		return err
	case <-signals:
		go func() {
			<-signals
			os.Exit(1)
		}()
		s.drain()
		return nil
	}
}

func (s *Service) drain() {
	log.Printf("draining, for at most %v", s.grace)
	s.health.Shutdown()
	s.endWatches()
	finished := make(chan struct{})
	go func() {
		s.api.GracefulStop()
		close(finished)
	}()
	select {
	case <-finished:
	case <-time.After(s.grace):
		log.Print("the grace is over, calls in flight are cut")
		s.api.Stop()
	}
	s.knobs.Stop()
}

func (s *Service) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if !isHealth(info.FullMethod) {
		if err := s.faults.Before(ctx); err != nil {
			return nil, err
		}
	}
	return handle(ctx, request)
}

func (s *Service) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if !isHealth(info.FullMethod) {
		if err := s.faults.Before(stream.Context()); err != nil {
			return err
		}
	}
	if !isWatch(info.FullMethod) {
		return handle(server, stream)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		select {
		case <-s.draining.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	return handle(server, watch{stream, ctx})
}

// Probes see the process, not the knobs: a fault of the application that the platform does
// not notice is the interesting one.
func isHealth(method string) bool { return strings.HasPrefix(method, "/grpc.health.v1.Health/") }

// By convention a stream that never ends by itself is called Watch….
func isWatch(method string) bool {
	return strings.HasPrefix(method[strings.LastIndexByte(method, '/')+1:], "Watch")
}

// watch is a stream whose context also ends when the service drains.
type watch struct {
	grpc.ServerStream
	ctx context.Context
}

func (w watch) Context() context.Context { return w.ctx }

func exitOn(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
