package chassis

import (
	"context"
	"regexp"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// Dial makes a connection to another service. Each call takes along the traceparent of the
// call that it is made for, and ends with that one's deadline, or after the timeout if that is
// earlier. A stream has no timeout of its own: whoever opens it ends it.
func Dial(address string, timeout time.Duration) (*grpc.ClientConn, error) {
	onward := func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return invoke(traced(ctx), method, request, reply, conn, options...)
	}
	stream := func(ctx context.Context, of *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		return open(traced(ctx), of, conn, method, options...)
	}
	soonAgain := backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(onward),
		grpc.WithStreamInterceptor(stream),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: soonAgain, MinConnectTimeout: 2 * time.Second}),
		grpc.WithDisableServiceConfig(), // spares a TXT query a name
		grpc.WithNoProxy(),
	)
}

// traced is the context of a call that is made for the one that came in.
func traced(ctx context.Context) context.Context {
	if trace := traceparent(ctx); trace != "" {
		return metadata.AppendToOutgoingContext(ctx, "traceparent", trace)
	}
	return ctx
}

// Detached is a context for what has to be done even though the caller may be gone. It has a deadline of its own and
// nothing of the caller's, not even the trace: by that a mesh knows for whom a call is made, gives it what is left of
// his time, and refuses it at once where nothing is (proxy/README.md, "What goes through the app").
func Detached(timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), timeout)
}

// TraceID of the call that is being answered: 32 hex digits, or nothing.
func TraceID(ctx context.Context) string {
	if trace := traceparent(ctx); trace != "" {
		return trace[3:35]
	}
	return ""
}

var wellFormed = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// traceparent is W3C trace context's header in a call that came in, unless it is no such thing.
func traceparent(ctx context.Context) string {
	if values := metadata.ValueFromIncomingContext(ctx, "traceparent"); len(values) == 1 && wellFormed.MatchString(values[0]) {
		return values[0]
	}
	return ""
}
