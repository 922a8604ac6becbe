package dev.weir.boutique.ads;

/**
 * The knob for long garbage collections: live objects, chained so that a collector has to follow them one by one, and a
 * full collection every so often. All threads stand still meanwhile.
 */
final class Ballast {
  private static final int BYTES_PER_LINK = 1024;

  private record Link(Link next, byte[] weight) {}

  private final Link chain;

  /** @param mebibytes kept alive; a heap of 64 MiB has room for 40. */
  Ballast(int mebibytes) {
    Link last = null;
    for (int i = 0; i < mebibytes * 1024; i++) {
      last = new Link(last, new byte[BYTES_PER_LINK]);
    }
    chain = last;
  }

  /** Collects every {@code intervalMs}, until the process ends. */
  void collectEvery(int intervalMs) {
    Thread collector = new Thread(() -> {
      try {
        while (chain != null) {
          Thread.sleep(intervalMs);
          System.gc();
        }
      } catch (InterruptedException nobodyDoes) {
        throw new IllegalStateException(nobodyDoes);
      }
    }, "collector");
    collector.setDaemon(true);
    collector.start();
  }
}
