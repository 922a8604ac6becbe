package dev.weir.boutique.payment;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static java.nio.charset.StandardCharsets.US_ASCII;
import static java.nio.file.StandardOpenOption.CREATE;
import static java.nio.file.StandardOpenOption.READ;
import static java.nio.file.StandardOpenOption.WRITE;

import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/**
 * What was charged and what was given back, in a file that is only ever appended to. What is answered is on disk: a
 * process that comes back knows all that its predecessor said.
 *
 * <p>A line an entry, for people to read:
 *
 * <pre>
 * CHARGE key transaction USD 12 500000000 trace
 * REFUND key transaction trace
 * </pre>
 *
 * <p>A transaction of "-" is a refund of what was never charged: it forbids the charge. A line without its end was
 * never acknowledged; it is cut off when the file is opened.
 */
final class Ledger implements Closeable {
  /** What a key stands for. */
  record Account(String transaction, String amount, int charges, int refunds) {
    boolean isRefunded() {
      return refunds > 0;
    }
  }

  static final String NO_TRANSACTION = "-";
  private static final Account NOTHING = new Account(NO_TRANSACTION, "", 0, 0);

  private final FileChannel file;
  private final int entriesMax;
  private final Map<String, Account> accounts = new HashMap<>();
  private int entries;

  /** @param entriesMax lines beyond which nothing more is taken: about 250 bytes of memory each. */
  Ledger(Path path, int entriesMax) throws IOException {
    this.entriesMax = entriesMax;
    file = FileChannel.open(path, CREATE, READ, WRITE);
    try (FileChannel folder = FileChannel.open(path.toAbsolutePath().getParent(), READ)) {
      folder.force(true); // a file that is new is there after a power cut only if its folder says so
    }
    // Whatever bytes a line without its end may have: a character each.
    String text = Files.readString(path, ISO_8859_1);
    int end = text.lastIndexOf('\n') + 1;
    text.substring(0, end).lines().forEach(this::count);
    file.truncate(end);
    file.position(end);
    file.force(true);
  }

  synchronized Account account(String key) {
    return accounts.getOrDefault(key, NOTHING);
  }

  synchronized boolean isFull() {
    return entries >= entriesMax;
  }

  synchronized void charge(String key, String transaction, String amount, String trace) throws IOException {
    append(String.join(" ", "CHARGE", key, transaction, amount, trace));
  }

  synchronized void refund(String key, String trace) throws IOException {
    append(String.join(" ", "REFUND", key, account(key).transaction(), trace));
  }

  @Override
  public synchronized void close() throws IOException {
    file.close();
  }

  private void append(String line) throws IOException {
    long end = file.position();
    try {
      ByteBuffer bytes = US_ASCII.encode(line + "\n");
      while (bytes.hasRemaining()) {
        file.write(bytes);
      }
      file.force(false);
    } catch (IOException notOnDisk) {
      // Whoever asked hears that it failed, so it must not come back with the next process.
      file.truncate(end);
      file.position(end);
      throw notOnDisk;
    }
    count(line);
  }

  private void count(String line) {
    String[] words = line.split(" ");
    Account before = accounts.getOrDefault(words[1], NOTHING);
    Account after = switch (words[0]) {
      case "CHARGE" -> new Account(
          words[2], String.join(" ", words[3], words[4], words[5]), before.charges + 1, before.refunds);
      case "REFUND" -> new Account(before.transaction, before.amount, before.charges, before.refunds + 1);
      default -> throw new IllegalStateException("the ledger has a line of a kind unknown: " + line);
    };
    accounts.put(words[1], after);
    entries++;
  }
}
