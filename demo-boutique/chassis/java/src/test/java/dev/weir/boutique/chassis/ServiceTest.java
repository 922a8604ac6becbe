package dev.weir.boutique.chassis;

import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import boutique.v1.AdsGrpc;
import boutique.v1.AdsOuterClass.Ad;
import boutique.v1.AdsOuterClass.GetAdsRequest;
import boutique.v1.AdsOuterClass.GetAdsResponse;
import boutique.v1.ChaosGrpc;
import boutique.v1.ChaosOuterClass.Knobs;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class ServiceTest {
  private static final String TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  private static final HealthCheckRequest WHOLE = HealthCheckRequest.getDefaultInstance();

  /** Answers with the trace that it sees; "slow" waits until it is told to go on, "broken" breaks. */
  private final class Sample extends AdsGrpc.AdsImplBase {
    private final CountDownLatch entered = new CountDownLatch(1);
    private final CountDownLatch leave = new CountDownLatch(1);

    @Override
    public void getAds(GetAdsRequest request, StreamObserver<GetAdsResponse> answer) {
      if (request.getContextKeysList().contains("broken")) {
        throw new IllegalStateException("nobody thought of this");
      }
      if (request.getContextKeysList().contains("slow")) {
        entered.countDown();
        await(leave);
      }
      String text = Trace.id();
      if (request.getContextKeysList().contains("onward")) {
        text = ask(AdsGrpc.newBlockingStub(api).withInterceptors(Trace.CLIENT));
      }
      answer.onNext(GetAdsResponse.newBuilder().addAds(Ad.newBuilder().setText(text)).build());
      answer.onCompleted();
    }
  }

  private final Sample sample = new Sample();
  private final List<ManagedChannel> channels = new ArrayList<>();
  private Service service;
  private ManagedChannel api;
  private ManagedChannel knobs;

  @BeforeEach
  void open() throws Exception {
    var services = List.of(sample.bindService(), Alias.of(sample, "hipstershop.AdService"));
    service = new Service(0, 0, new Faults(Knobs.getDefaultInstance()), services).start();
    api = channel(service.port());
    knobs = channel(service.chaosPort());
  }

  @AfterEach
  void close() throws Exception {
    channels.forEach(ManagedChannel::shutdownNow);
    sample.leave.countDown();
    service.drain(5);
  }

  private ManagedChannel channel(int port) {
    ManagedChannel channel = NettyChannelBuilder.forAddress("127.0.0.1", port).usePlaintext().build();
    channels.add(channel);
    return channel;
  }

  private AdsGrpc.AdsBlockingStub ads() {
    return AdsGrpc.newBlockingStub(api).withDeadlineAfter(10, SECONDS);
  }

  private static String ask(AdsGrpc.AdsBlockingStub ads, String... keys) {
    return ads.getAds(GetAdsRequest.newBuilder().addAllContextKeys(List.of(keys)).build()).getAds(0).getText();
  }

  private void turn(Knobs.Builder to) {
    ChaosGrpc.newBlockingStub(knobs).withDeadlineAfter(10, SECONDS).set(to.build());
  }

  private static Status statusOf(Runnable call) {
    return assertThrows(StatusRuntimeException.class, call::run).getStatus();
  }

  private static void await(CountDownLatch latch) {
    try {
      assertTrue(latch.await(10, SECONDS), "it takes too long");
    } catch (InterruptedException nobodyDoes) {
      throw new IllegalStateException(nobodyDoes);
    }
  }

  @Test
  void drainingFinishesWhatRunsEndsTheWatchersAndRefusesTheRest() throws Exception {
    Iterator<HealthCheckResponse> watched =
        HealthGrpc.newBlockingStub(api).withDeadlineAfter(10, SECONDS).watch(WHOLE);
    assertEquals(ServingStatus.SERVING, watched.next().getStatus());
    var inFlight = CompletableFuture.supplyAsync(() -> ask(ads(), "slow"));
    await(sample.entered);

    var drained = CompletableFuture.runAsync(() -> {
      try {
        service.drain(8);
      } catch (InterruptedException nobodyDoes) {
        throw new IllegalStateException(nobodyDoes);
      }
    });
    assertEquals(ServingStatus.NOT_SERVING, watched.next().getStatus());
    assertFalse(watched.hasNext());
    AdsGrpc.AdsBlockingStub newcomer =
        AdsGrpc.newBlockingStub(channel(service.port())).withDeadlineAfter(5, SECONDS);
    assertEquals(Status.Code.UNAVAILABLE, statusOf(() -> ask(newcomer)).getCode());
    assertFalse(drained.isDone(), "it ended with a call in flight");
    sample.leave.countDown();
    assertEquals("-", inFlight.get(5, SECONDS));
    drained.get(5, SECONDS);
  }

  @Test
  void whatOutlivesTheGraceIsCut() throws Exception {
    var inFlight = CompletableFuture.supplyAsync(() -> statusOf(() -> ask(ads(), "slow")));
    await(sample.entered);
    service.drain(0);
    assertEquals(Status.Code.CANCELLED, inFlight.get(5, SECONDS).getCode()); // as RST_STREAM says
  }

  @Test
  void knobsSetAtRuntimeTouchTheApiButNotItsHealth() {
    turn(Knobs.newBuilder().setErrorPct(100).setCode(Status.Code.INTERNAL.value()));
    assertEquals(Status.Code.INTERNAL, statusOf(() -> ask(ads())).getCode());
    var health = HealthGrpc.newBlockingStub(api).withDeadlineAfter(10, SECONDS);
    var ofAds = HealthCheckRequest.newBuilder().setService("boutique.v1.Ads").build();
    assertEquals(ServingStatus.SERVING, health.check(ofAds).getStatus());
    var ofNobody = HealthCheckRequest.newBuilder().setService("boutique.v1.Nobody").build();
    assertEquals(Status.Code.NOT_FOUND, statusOf(() -> health.check(ofNobody)).getCode());
    assertEquals(
        Status.Code.INVALID_ARGUMENT, statusOf(() -> turn(Knobs.newBuilder().setErrorPct(101))).getCode());
  }

  @Test
  void aThousandFrozenCallsHoldNoWorkerThatHealthNeeds() throws Exception {
    turn(Knobs.newBuilder().setFreeze(true));
    var calls = new ArrayList<CompletableFuture<String>>();
    var stub = AdsGrpc.newFutureStub(api).withDeadlineAfter(20, SECONDS);
    for (int i = 0; i < 1000; i++) {
      var call = stub.getAds(GetAdsRequest.getDefaultInstance());
      var text = new CompletableFuture<String>();
      call.addListener(() -> text.complete(call.isDone() ? "answered" : "not"), Runnable::run);
      calls.add(text);
    }
    var health = HealthGrpc.newBlockingStub(api).withDeadlineAfter(10, SECONDS);
    assertEquals(ServingStatus.SERVING, health.check(WHOLE).getStatus());
    assertTrue(calls.stream().noneMatch(CompletableFuture::isDone), "they were answered");
    turn(Knobs.newBuilder());
    CompletableFuture.allOf(calls.toArray(CompletableFuture[]::new)).get(15, SECONDS);
  }

  @Test
  void theKnobsAreNotOnTheMainPort() {
    var chaos = ChaosGrpc.newBlockingStub(api).withDeadlineAfter(10, SECONDS);
    assertEquals(Status.Code.UNIMPLEMENTED, statusOf(() -> chaos.set(Knobs.getDefaultInstance())).getCode());
  }

  @Test
  void aHandlerThatBreaksAnswersAllTheSame() {
    assertEquals(Status.Code.INTERNAL, statusOf(() -> ask(ads(), "broken")).getCode());
    turn(Knobs.newBuilder().setLatencyMs(20)); // then it breaks on another thread
    assertEquals(Status.Code.INTERNAL, statusOf(() -> ask(ads(), "broken")).getCode());
  }

  @Test
  void theTraceparentGoesAlongAndNothingElseTakesItsPlace() {
    var headers = new Metadata();
    var name = Metadata.Key.of("traceparent", Metadata.ASCII_STRING_MARSHALLER);
    headers.put(name, TRACEPARENT);
    var traced = ads().withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
    assertEquals("0af7651916cd43dd8448eb211c80319c", ask(traced, "onward"));
    turn(Knobs.newBuilder().setLatencyMs(20)); // the call goes on on another thread
    assertEquals("0af7651916cd43dd8448eb211c80319c", ask(traced, "onward"));
    headers.discardAll(name);
    headers.put(name, "nonsense");
    assertEquals("-", ask(traced, "onward"));
  }

  @Test
  void theSameServiceAnswersUnderItsOtherName() {
    var method = AdsGrpc.getGetAdsMethod().toBuilder().setFullMethodName("hipstershop.AdService/GetAds").build();
    var options = io.grpc.CallOptions.DEFAULT.withDeadlineAfter(10, SECONDS);
    var answer = io.grpc.stub.ClientCalls.blockingUnaryCall(api, method, options, GetAdsRequest.getDefaultInstance());
    assertEquals("-", answer.getAds(0).getText());
  }
}
