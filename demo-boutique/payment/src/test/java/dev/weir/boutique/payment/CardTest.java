package dev.weir.boutique.payment;

import static org.junit.jupiter.api.Assertions.assertEquals;

import boutique.v1.PaymentOuterClass.CreditCardInfo;
import java.time.YearMonth;
import java.util.Optional;
import org.junit.jupiter.api.Test;

class CardTest {
  private static final YearMonth NOW = YearMonth.of(2026, 11);

  private static Optional<String> declined(String number, int year, int month) {
    var card = CreditCardInfo.newBuilder()
        .setCreditCardNumber(number)
        .setCreditCardExpirationYear(year)
        .setCreditCardExpirationMonth(month);
    return Card.declined(card.build(), NOW);
  }

  @Test
  void aValidCardIsGoodUntilTheEndOfItsMonth() {
    assertEquals(Optional.empty(), declined("4432-8015-6152-0454", 2026, 11));
    assertEquals(Optional.empty(), declined("5555 5555 5555 4444", 2027, 1));
    assertEquals(Optional.of("the card has expired"), declined("4432-8015-6152-0454", 2026, 10));
  }

  @Test
  void whatIsNoCardIsDeclined() {
    for (String number : new String[] {"", "4432-8015-6152-0455", "4", "4432x8015x6152x0454", "４４３２８０１５６１５２０４５４"}) {
      assertEquals(Optional.of("this is no card number"), declined(number, 2027, 1), number);
    }
    assertEquals(
        Optional.of("only Visa and MasterCard are accepted"), declined("3782 822463 10005", 2027, 1));
  }

  @Test
  void aDateThatNoCardCanHaveIsDeclinedAndBreaksNothing() {
    assertEquals(Optional.empty(), declined("4432-8015-6152-0454", 9999, 12));
    for (int year : new int[] {Integer.MIN_VALUE, -1, 0, 10_000, 1_000_000_000, Integer.MAX_VALUE}) {
      assertEquals(Optional.of("the card has no expiration date"), declined("4432-8015-6152-0454", year, 1), "" + year);
    }
    for (int month : new int[] {Integer.MIN_VALUE, 0, 13, Integer.MAX_VALUE}) {
      assertEquals(Optional.of("the card has no expiration date"), declined("4432-8015-6152-0454", 2027, month), "" + month);
    }
  }
}
