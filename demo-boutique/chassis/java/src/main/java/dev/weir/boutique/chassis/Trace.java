package dev.weir.boutique.chassis;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import java.util.regex.Pattern;

/** W3C trace context: the caller's traceparent goes along on every call made for it. */
public final class Trace {
  private static final Metadata.Key<String> HEADER =
      Metadata.Key.of("traceparent", Metadata.ASCII_STRING_MARSHALLER);
  private static final Context.Key<String> TRACEPARENT = Context.key("traceparent");
  private static final Pattern WELL_FORMED = Pattern.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}");

  private Trace() {}

  /** Of the call that is being answered: 32 hex digits, or "-" where it has none. */
  public static String id() {
    String traceparent = TRACEPARENT.get();
    return traceparent == null ? "-" : traceparent.substring(3, 35);
  }

  /** Takes it from a call that came in; one that is no such thing counts for nothing. */
  static final ServerInterceptor SERVER = new ServerInterceptor() {
    @Override
    public <Q, A> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
      String traceparent = headers.get(HEADER);
      if (traceparent == null || !WELL_FORMED.matcher(traceparent).matches()) {
        return next.startCall(call, headers);
      }
      return Contexts.interceptCall(Context.current().withValue(TRACEPARENT, traceparent), call, headers, next);
    }
  };

  /** Puts it on a call that goes out. */
  public static final ClientInterceptor CLIENT = new ClientInterceptor() {
    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
      String traceparent = TRACEPARENT.get();
      return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
        @Override
        public void start(Listener<A> listener, Metadata headers) {
          if (traceparent != null) {
            headers.put(HEADER, traceparent);
          }
          super.start(listener, headers);
        }
      };
    }
  };
}
