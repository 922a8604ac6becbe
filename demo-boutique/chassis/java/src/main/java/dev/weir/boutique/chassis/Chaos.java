package dev.weir.boutique.chassis;

import boutique.v1.ChaosGrpc;
import boutique.v1.ChaosOuterClass.Knobs;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;

/** Lets whoever is inside the pod turn the knobs while the service runs. */
final class Chaos extends ChaosGrpc.ChaosImplBase {
  private final Faults faults;

  Chaos(Faults faults) {
    this.faults = faults;
  }

  @Override
  public void set(Knobs knobs, StreamObserver<Knobs> answer) {
    try {
      faults.set(knobs);
    } catch (IllegalArgumentException nonsense) {
      answer.onError(Status.INVALID_ARGUMENT.withDescription(nonsense.getMessage()).asException());
      return;
    }
    answer.onNext(faults.knobs());
    answer.onCompleted();
  }
}
