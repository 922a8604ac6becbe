package dev.weir.boutique.chassis;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import boutique.v1.ChaosOuterClass.Knobs;
import io.grpc.Status;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

class FaultsTest {
  private final CompletableFuture<Void> gone = new CompletableFuture<>();

  private static Knobs.Builder knobs() {
    return Knobs.newBuilder();
  }

  private static Status.Code codeOf(CompletableFuture<Void> call) {
    Throwable why = assertThrows(CompletionException.class, () -> call.orTimeout(5, SECONDS).join());
    return Status.fromThrowable(why).getCode();
  }

  @Test
  void withoutKnobsACallPassesAtOnce() {
    assertTrue(new Faults(Knobs.getDefaultInstance()).before(gone).isDone());
  }

  @Test
  void theGivenShareOfCallsFailsWithTheGivenCode() {
    AtomicInteger next = new AtomicInteger();
    Faults faults = new Faults(
        knobs().setErrorPct(30).setCode(Status.Code.ABORTED.value()).build(), () -> next.getAndIncrement() % 100);
    int failed = 0;
    for (int i = 0; i < 100; i++) {
      CompletableFuture<Void> call = faults.before(gone);
      if (call.isCompletedExceptionally()) {
        failed++;
        assertEquals(Status.Code.ABORTED, codeOf(call));
      }
    }
    assertEquals(30, failed);
  }

  @Test
  void aCodeOfZeroStandsForUnavailable() {
    assertEquals(Status.Code.UNAVAILABLE, codeOf(new Faults(knobs().setErrorPct(100).build()).before(gone)));
  }

  @Test
  void latencyEndsEarlyWhenTheCallerGivesUp() {
    CompletableFuture<Void> call = new Faults(knobs().setLatencyMs(60_000).build()).before(gone);
    assertFalse(call.isDone());
    gone.completeExceptionally(Status.CANCELLED.asException());
    assertEquals(Status.Code.CANCELLED, codeOf(call));
  }

  @Test
  void aFrozenCallGoesOnWhenItThaws() {
    Faults faults = new Faults(knobs().setFreeze(true).build());
    CompletableFuture<Void> call = faults.before(gone);
    assertThrows(TimeoutException.class, () -> call.get(50, MILLISECONDS));
    faults.set(Knobs.getDefaultInstance());
    assertDoesNotThrow(() -> call.get(5, SECONDS));
  }

  @Test
  void aFrozenCallEndsWhenTheCallerGivesUp() {
    CompletableFuture<Void> call = new Faults(knobs().setFreeze(true).build()).before(gone);
    gone.completeExceptionally(Status.CANCELLED.asException());
    assertEquals(Status.Code.CANCELLED, codeOf(call));
  }

  @Test
  void capacityIsSlotsOverServiceTime() {
    Faults faults = new Faults(knobs().setSlots(2).setServiceMs(100).build());
    long start = System.nanoTime();
    List<CompletableFuture<Void>> calls = new ArrayList<>();
    for (int i = 0; i < 6; i++) { // three rounds of two
      calls.add(faults.before(gone));
    }
    CompletableFuture.allOf(calls.toArray(CompletableFuture[]::new)).orTimeout(5, SECONDS).join();
    long tookMs = (System.nanoTime() - start) / 1_000_000;
    assertTrue(tookMs >= 299 && tookMs < 1500, tookMs + " ms for six calls on two slots of 100 ms");
  }

  @Test
  void workIsDoneAlsoForACallerThatLeft() {
    Faults faults = new Faults(knobs().setSlots(1).setServiceMs(60_000).build());
    faults.before(gone);
    gone.completeExceptionally(Status.CANCELLED.asException());
    assertThrows(TimeoutException.class, () -> faults.before(new CompletableFuture<>()).get(50, MILLISECONDS));
  }

  @Test
  void liftingTheSlotsFreesTheCallsThatWaitForOne() {
    Faults faults = new Faults(knobs().setSlots(1).setServiceMs(60_000).build());
    faults.before(gone);
    CompletableFuture<Void> waiting = faults.before(gone);
    assertFalse(waiting.isDone());
    faults.set(Knobs.getDefaultInstance());
    assertDoesNotThrow(() -> waiting.get(5, SECONDS));
  }

  @Test
  void theLineForTheSlotsHasAnEndAndIsCalledUpToIt() {
    Faults faults = new Faults(knobs().setSlots(1).setServiceMs(60_000).build());
    faults.before(gone);
    List<CompletableFuture<Void>> waiting = new ArrayList<>();
    for (int i = 1; i < Faults.WORK_MAX; i++) {
      waiting.add(faults.before(gone));
    }
    assertEquals(Status.Code.RESOURCE_EXHAUSTED, codeOf(faults.before(gone)));
    faults.set(knobs().setSlots(2).build()); // one by one at the slot that is free
    CompletableFuture.allOf(waiting.toArray(CompletableFuture[]::new)).orTimeout(5, SECONDS).join();
    assertDoesNotThrow(() -> faults.before(gone).get(5, SECONDS));
  }

  @Test
  void knobsThatMakeNoSenseAreRefusedAndTheOldOnesStay() {
    Faults faults = new Faults(knobs().setLatencyMs(7).build());
    for (Knobs.Builder nonsense : List.of(
        knobs().setErrorPct(101), knobs().setLatencyMs(-1), knobs().setCode(17), knobs().setSlots(-1),
        knobs().setServiceMs(-1))) {
      assertThrows(IllegalArgumentException.class, () -> faults.set(nonsense.build()), nonsense::toString);
    }
    assertEquals(7, faults.knobs().getLatencyMs());
  }
}
