package dev.weir.boutique.ads;

import dev.weir.boutique.chassis.Alias;
import dev.weir.boutique.chassis.Env;
import dev.weir.boutique.chassis.Service;
import java.util.List;
import java.util.random.RandomGenerator;

/** Ads has something to show beside what the visitor looks at. Nobody misses it. */
final class Main {
  private Main() {}

  public static void main(String[] arguments) throws Exception {
    Env env = new Env(System.getenv());
    int everyMs = env.integer("GC_EVERY_MS", 0);
    if (everyMs > 0) {
      new Ballast(env.integer("GC_BALLAST_MB", 32)).collectEvery(everyMs);
    }
    AdsService ads = new AdsService(RandomGenerator.getDefault());
    // Online Boutique's name for the same API: its services can call this one.
    var services = List.of(ads.bindService(), Alias.of(ads, "hipstershop.AdService"));
    Service.main("ads", env, 9555, 9955, services);
  }
}
