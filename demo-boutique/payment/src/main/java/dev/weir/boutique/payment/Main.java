package dev.weir.boutique.payment;

import dev.weir.boutique.chassis.Alias;
import dev.weir.boutique.chassis.Env;
import dev.weir.boutique.chassis.Service;
import java.nio.file.Path;
import java.time.Clock;
import java.util.List;

/** Payment takes money, each key once, and writes down that it did. */
final class Main {
  private static final int ENTRIES_MAX = 100_000;

  private Main() {}

  public static void main(String[] arguments) throws Exception {
    Env env = new Env(System.getenv());
    Path path = Path.of(env.text("LEDGER_FILE", "bin/ledger.txt"));
    try (Ledger ledger = new Ledger(path, env.integer("LEDGER_ENTRIES_MAX", ENTRIES_MAX))) {
      PaymentService payment = new PaymentService(ledger, Clock.systemUTC());
      // Online Boutique's name for the same API: its services can call this one.
      var services = List.of(payment.bindService(), Alias.of(payment, "hipstershop.PaymentService"));
      Service.main("payment", env, 50051, 9551, services);
    }
  }
}
