package dev.weir.boutique.chassis;

import static java.util.concurrent.TimeUnit.MILLISECONDS;

import boutique.v1.ChaosOuterClass.Knobs;
import io.grpc.Status;
import java.util.ArrayDeque;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.IntSupplier;

/**
 * Does to every call what the knobs say, before its handler runs: freeze → latency → error → work.
 *
 * <p>Freeze and latency end when the caller gives up. Work does not: a worker does not see its caller leave, and that
 * is what makes an overloaded service waste its capacity. No thread is held meanwhile.
 */
public final class Faults {
  /** Of those at work and in line, also for callers who left. */
  static final int WORK_MAX = 4096;
  private static final int HOUR_MS = 3_600_000;

  private final IntSupplier percent;
  private final ScheduledExecutorService timer =
      Executors.newSingleThreadScheduledExecutor(task -> {
        Thread thread = new Thread(task, "faults");
        thread.setDaemon(true);
        return thread;
      });

  private Knobs knobs = Knobs.getDefaultInstance();
  /** Completed and replaced when the knobs change: wakes frozen calls. */
  private CompletableFuture<Void> changed = new CompletableFuture<>();
  private int busy;
  /** Calls that wait for a worker. There is no way to leave this line. */
  private final Queue<CompletableFuture<Void>> line = new ArrayDeque<>();
  private boolean isCallingUp;

  public Faults(Knobs knobs) {
    this(knobs, () -> ThreadLocalRandom.current().nextInt(100));
  }

  /** @param percent draws a number from 0 to 99, anew for every call. */
  Faults(Knobs knobs, IntSupplier percent) {
    this.percent = percent;
    set(knobs);
  }

  synchronized Knobs knobs() {
    return knobs;
  }

  /** Replaces all knobs at once, also for the calls that are frozen or in line now. */
  void set(Knobs knobs) {
    check(knobs);
    CompletableFuture<Void> before;
    synchronized (this) {
      this.knobs = knobs;
      before = changed;
      changed = new CompletableFuture<>();
    }
    before.complete(null);
    callUp();
  }

  private static void check(Knobs knobs) {
    within("latency_ms", knobs.getLatencyMs(), HOUR_MS);
    within("error_pct", knobs.getErrorPct(), 100);
    within("code", knobs.getCode(), Status.Code.UNAUTHENTICATED.value());
    within("slots", knobs.getSlots(), 1 << 20);
    within("service_ms", knobs.getServiceMs(), HOUR_MS);
  }

  private static void within(String name, int value, int most) {
    if (value < 0 || value > most) {
      throw new IllegalArgumentException(name + " is " + value + ", it has to be between 0 and " + most);
    }
  }

  /**
   * Completes when the call may go on, or with the StatusException that it has to end with.
   *
   * @param gone fails when the caller gives up, and never completes otherwise.
   */
  CompletableFuture<Void> before(CompletableFuture<Void> gone) {
    return thawed(gone)
        .thenCompose(now -> pause(now.getLatencyMs(), gone).thenCompose(late -> failed(now)))
        .thenCompose(well -> work());
  }

  private CompletableFuture<Knobs> thawed(CompletableFuture<Void> gone) {
    CompletableFuture<Void> change;
    synchronized (this) {
      if (!knobs.getFreeze()) {
        return CompletableFuture.completedFuture(knobs);
      }
      change = changed;
    }
    return CompletableFuture.anyOf(change, gone).thenCompose(woken -> thawed(gone));
  }

  private CompletableFuture<Void> failed(Knobs now) {
    if (percent.getAsInt() >= now.getErrorPct()) {
      return CompletableFuture.completedFuture(null);
    }
    Status status = now.getCode() == 0 ? Status.UNAVAILABLE : Status.fromCodeValue(now.getCode());
    return CompletableFuture.failedFuture(
        status.withDescription("chaos: this call was told to fail").asException());
  }

  /** Occupies one of the slots for the service time. */
  private CompletableFuture<Void> work() {
    CompletableFuture<Void> turn = new CompletableFuture<>();
    synchronized (this) {
      if (knobs.getSlots() == 0 && knobs.getServiceMs() == 0) {
        return CompletableFuture.completedFuture(null);
      }
      if (busy + line.size() >= WORK_MAX) {
        return CompletableFuture.failedFuture(Status.RESOURCE_EXHAUSTED
            .withDescription(WORK_MAX + " calls wait for a slot already")
            .asException());
      }
      line.add(turn);
    }
    CompletableFuture<Void> worked =
        turn.thenCompose(mine -> pause(knobs().getServiceMs(), new CompletableFuture<>()));
    callUp();
    return worked.thenRun(() -> {
      synchronized (this) {
        busy--;
      }
      callUp();
    });
  }

  /**
   * One at a time: work that takes no time ends within complete(), and calls up again; as many calls as are in line
   * would not fit onto the stack.
   */
  private void callUp() {
    synchronized (this) {
      if (isCallingUp) {
        return; // whoever does it looks once more
      }
      isCallingUp = true;
    }
    while (true) {
      CompletableFuture<Void> next;
      synchronized (this) {
        if (line.isEmpty() || (knobs.getSlots() > 0 && busy >= knobs.getSlots())) {
          isCallingUp = false;
          return;
        }
        busy++;
        next = line.remove();
      }
      next.complete(null);
    }
  }

  private CompletableFuture<Void> pause(int ms, CompletableFuture<Void> gone) {
    if (ms == 0) {
      return CompletableFuture.completedFuture(null);
    }
    CompletableFuture<Void> over = new CompletableFuture<>();
    var alarm = timer.schedule(() -> over.complete(null), ms, MILLISECONDS);
    gone.whenComplete((nothing, why) -> {
      alarm.cancel(false);
      over.completeExceptionally(why);
    });
    return over;
  }
}
