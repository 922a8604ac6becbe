package dev.weir.boutique.chassis;

import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.Server;
import io.grpc.ServerServiceDefinition;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.stream.Collectors;
import sun.misc.Signal;

/**
 * One gRPC server of the shop: its own API and grpc.health.v1 on the main port, the knobs on another that only the pod
 * itself can reach.
 */
public final class Service {
  /** Handlers at work at once; more calls wait their turn. */
  private static final int WORKERS = 16;

  private final Health health;
  private final Server api;
  private final Server knobs;
  private final ExecutorService workers = Executors.newFixedThreadPool(WORKERS);

  /** @param chaosPort 0 for any port: whether there are knobs is for {@link #main} to decide. */
  Service(int port, int chaosPort, Faults faults, List<ServerServiceDefinition> services) {
    health = new Health(services.stream()
        .map(service -> service.getServiceDescriptor().getName())
        .collect(Collectors.toUnmodifiableSet()));
    // No host: both address families, or the one that there is.
    api = NettyServerBuilder.forAddress(new InetSocketAddress(port))
        .executor(workers)
        .addServices(services)
        .addService(health)
        .intercept(new FaultInterceptor(faults, workers))
        .intercept(Trace.SERVER) // the last one is the outermost
        .build();
    knobs = NettyServerBuilder.forAddress(new InetSocketAddress(InetAddress.getLoopbackAddress(), chaosPort))
        .directExecutor()
        .addService(new Chaos(faults))
        .build();
  }

  /**
   * Runs a service on the ports that the environment says (PORT, CHAOS_PORT; 0 switches the knobs' port off) until
   * SIGTERM, and does not return. The first signal drains, the second ends the process at once.
   */
  public static void main(String name, Env env, int port, int chaosPort, List<ServerServiceDefinition> services)
      throws IOException, InterruptedException {
    int knobsOn = env.integer("CHAOS_PORT", chaosPort);
    Service service =
        new Service(env.integer("PORT", port), knobsOn, new Faults(env.knobs()), services);
    int graceSeconds = env.integer("DRAIN_SECONDS", 10);

    CountDownLatch asked = new CountDownLatch(1);
    for (String signal : List.of("TERM", "INT")) {
      Signal.handle(new Signal(signal), received -> {
        if (asked.getCount() == 0) {
          Runtime.getRuntime().halt(1);
        }
        asked.countDown();
      });
    }
    service.api.start();
    if (knobsOn != 0) {
      service.knobs.start();
    }
    System.out.println(name + ": serving on :" + service.port() + ", knobs on 127.0.0.1:" + knobsOn);
    asked.await();
    System.out.println(name + ": draining, for at most " + graceSeconds + " s");
    service.drain(graceSeconds);
    System.exit(0);
  }

  Service start() throws IOException {
    api.start();
    knobs.start();
    return this;
  }

  int port() {
    return api.getPort();
  }

  int chaosPort() {
    return knobs.getPort();
  }

  /** Accepts nothing more and finishes what runs; cuts what is left when the grace is over. */
  void drain(int graceSeconds) throws InterruptedException {
    health.drain();
    api.shutdown();
    if (!api.awaitTermination(graceSeconds, SECONDS)) {
      api.shutdownNow().awaitTermination(1, SECONDS);
    }
    knobs.shutdownNow();
    workers.shutdown();
  }
}
