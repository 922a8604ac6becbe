package dev.weir.boutique.chassis;

import io.grpc.Context;
import io.grpc.ForwardingServerCallListener.SimpleForwardingServerCallListener;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCall.Listener;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;

/**
 * Lets the faults have their way with a call once its request is there, before its handler runs. Probes pass: a fault
 * that the platform does not see is the interesting one.
 */
final class FaultInterceptor implements ServerInterceptor {
  private final Faults faults;
  private final Executor workers;

  FaultInterceptor(Faults faults, Executor workers) {
    this.faults = faults;
    this.workers = workers;
  }

  @Override
  public <Q, A> Listener<Q> interceptCall(ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
    if (call.getMethodDescriptor().getFullMethodName().startsWith("grpc.health.v1.Health/")) {
      return next.startCall(call, headers);
    }
    CompletableFuture<Void> gone = new CompletableFuture<>();
    return new SimpleForwardingServerCallListener<>(next.startCall(call, headers)) {
      @Override
      public void onHalfClose() {
        CompletableFuture<Void> passed = faults.before(gone);
        if (passed.isDone()) {
          answer(passed);
        } else {
          Runnable later = Context.current().wrap(() -> answer(passed));
          passed.whenComplete((nothing, why) -> workers.execute(later));
        }
      }

      /** The handler does not expect to be called from two threads at once. */
      private synchronized void answer(CompletableFuture<Void> passed) {
        if (gone.isDone()) {
          return; // whoever asked has left, and the call has ended with that
        }
        Status status = passed.handle((nothing, why) -> why == null ? Status.OK : Status.fromThrowable(why)).join();
        if (!status.isOk()) {
          call.close(status, new Metadata());
          return;
        }
        try {
          super.onHalfClose();
        } catch (RuntimeException unforeseen) {
          unforeseen.printStackTrace();
          call.close(Status.INTERNAL.withDescription(unforeseen.toString()), new Metadata());
        }
      }

      @Override
      public synchronized void onCancel() {
        gone.completeExceptionally(Status.CANCELLED.asException());
        super.onCancel();
      }
    };
  }
}
