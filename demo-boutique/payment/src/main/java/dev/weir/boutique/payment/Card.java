package dev.weir.boutique.payment;

import boutique.v1.PaymentOuterClass.CreditCardInfo;
import java.time.YearMonth;
import java.util.Optional;

/** Whether a card can be charged. Nothing of it is kept or logged. */
final class Card {
  // What a card can have printed on it. Java's calendar ends too, and a year beyond it must be declined like any
  // other nonsense: what breaks here is asked again for ever.
  private static final int YEAR_MIN = 2000;
  private static final int YEAR_MAX = 9999;

  private Card() {}

  /** Why it is declined, if it is. */
  static Optional<String> declined(CreditCardInfo card, YearMonth now) {
    String number = card.getCreditCardNumber().replaceAll("[ -]", "");
    int month = card.getCreditCardExpirationMonth();
    int year = card.getCreditCardExpirationYear();
    if (!number.matches("\\d{12,19}") || !isLuhn(number)) {
      return Optional.of("this is no card number");
    }
    if (!number.matches("[45].*|2[2-7].*")) {
      return Optional.of("only Visa and MasterCard are accepted");
    }
    if (month < 1 || month > 12 || year < YEAR_MIN || year > YEAR_MAX) {
      return Optional.of("the card has no expiration date");
    }
    if (YearMonth.of(year, month).isBefore(now)) {
      return Optional.of("the card has expired");
    }
    return Optional.empty();
  }

  /** ISO/IEC 7812-1, annex B. */
  private static boolean isLuhn(String number) {
    int sum = 0;
    for (int i = 0; i < number.length(); i++) {
      int digit = number.charAt(number.length() - 1 - i) - '0';
      int weighted = i % 2 == 1 ? digit * 2 : digit;
      sum += weighted > 9 ? weighted - 9 : weighted;
    }
    return sum % 10 == 0;
  }
}
