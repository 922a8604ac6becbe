package dev.weir.boutique.payment;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class LedgerTest {
  @TempDir private Path folder;
  private Path path;

  @BeforeEach
  void name() {
    path = folder.resolve("ledger.txt");
  }

  private Ledger open() throws Exception {
    return new Ledger(path, 3);
  }

  @Test
  void whatWasWrittenIsKnownToTheNextProcess() throws Exception {
    try (Ledger ledger = open()) {
      ledger.charge("a", "t1", "EUR 12 500000000", "-");
      ledger.charge("b", "t2", "USD 3 0", "-");
      ledger.refund("b", "-");
    }
    try (Ledger ledger = open()) {
      assertEquals(new Ledger.Account("t1", "EUR 12 500000000", 1, 0), ledger.account("a"));
      assertEquals(new Ledger.Account("t2", "USD 3 0", 1, 1), ledger.account("b"));
      assertEquals(0, ledger.account("c").charges());
      assertTrue(ledger.isFull());
    }
  }

  /** A process that died while it wrote: nobody was told, so it did not happen. */
  @Test
  void aLineWithoutItsEndIsCutOffAndTheNextOneIsWhole() throws Exception {
    try (Ledger ledger = open()) {
      ledger.charge("a", "t1", "EUR 12 0", "-");
    }
    Files.writeString(path, "CHARGE b t2 EUR 1", StandardOpenOption.APPEND);
    try (Ledger ledger = open()) {
      assertEquals(0, ledger.account("b").charges());
      ledger.charge("c", "t3", "EUR 1 0", "-");
    }
    assertEquals("CHARGE a t1 EUR 12 0 -\nCHARGE c t3 EUR 1 0 -\n", Files.readString(path));
  }

  /** What a power cut leaves of it is whatever was in that place of the disk. */
  @Test
  void aLineWithoutItsEndMayHaveAnyBytes() throws Exception {
    try (Ledger ledger = open()) {
      ledger.charge("a", "t1", "EUR 12 0", "-");
    }
    Files.write(path, new byte[] {'C', 'H', 0, (byte) 0xff, (byte) 0xc3}, StandardOpenOption.APPEND);
    try (Ledger ledger = open()) {
      assertEquals(1, ledger.account("a").charges());
    }
    assertEquals("CHARGE a t1 EUR 12 0 -\n", Files.readString(path));
  }

  @Test
  void aFileThatIsNoLedgerIsNotWrittenTo() throws Exception {
    Files.writeString(path, "Dear diary\n");
    assertThrows(IllegalStateException.class, this::open);
    assertEquals("Dear diary\n", Files.readString(path));
  }
}
