package dev.weir.boutique.chassis;

import io.grpc.Status;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

/**
 * grpc.health.v1, with watchers whose streams end when the service drains: an open stream would otherwise keep a
 * graceful stop waiting.
 */
final class Health extends HealthGrpc.HealthImplBase {
  private final Set<String> services;
  /** What each watcher asked about. */
  private final Map<StreamObserver<HealthCheckResponse>, String> watchers = new LinkedHashMap<>();
  private boolean draining;

  /** @param services full names that have a health; "" is the process as a whole. */
  Health(Set<String> services) {
    this.services = services;
  }

  @Override
  public synchronized void check(HealthCheckRequest request, StreamObserver<HealthCheckResponse> answer) {
    HealthCheckResponse told = of(request.getService());
    if (told.getStatus() == ServingStatus.SERVICE_UNKNOWN) {
      String unknown = "no service \"" + request.getService() + "\" here";
      answer.onError(Status.NOT_FOUND.withDescription(unknown).asException());
      return;
    }
    answer.onNext(told);
    answer.onCompleted();
  }

  @Override
  public synchronized void watch(HealthCheckRequest request, StreamObserver<HealthCheckResponse> watcher) {
    ((ServerCallStreamObserver<HealthCheckResponse>) watcher).setOnCancelHandler(() -> forget(watcher));
    watcher.onNext(of(request.getService()));
    if (draining) {
      watcher.onCompleted();
    } else {
      watchers.put(watcher, request.getService());
    }
  }

  private synchronized void forget(StreamObserver<HealthCheckResponse> watcher) {
    watchers.remove(watcher);
  }

  synchronized void drain() {
    draining = true;
    watchers.forEach((watcher, service) -> {
      watcher.onNext(of(service));
      watcher.onCompleted();
    });
    watchers.clear();
  }

  private HealthCheckResponse of(String service) {
    ServingStatus status =
        !service.isEmpty() && !services.contains(service) ? ServingStatus.SERVICE_UNKNOWN
            : draining ? ServingStatus.NOT_SERVING : ServingStatus.SERVING;
    return HealthCheckResponse.newBuilder().setStatus(status).build();
  }
}
