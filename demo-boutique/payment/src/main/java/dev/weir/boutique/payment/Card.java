package dev.weir.boutique.payment;

import boutique.v1.PaymentOuterClass.CreditCardInfo;
import java.time.YearMonth;
import java.util.Optional;

/** Whether a card can be charged. Nothing of it is kept or logged. */
final class Card {
  private Card() {}

  /** Why it is declined, if it is. */
  static Optional<String> declined(CreditCardInfo card, YearMonth now) {
    String number = card.getCreditCardNumber().replaceAll("[ -]", "");
    int month = card.getCreditCardExpirationMonth();
    if (!number.matches("\\d{12,19}") || !isLuhn(number)) {
      return Optional.of("this is no card number");
    }
    if (!number.matches("[45].*|2[2-7].*")) {
      return Optional.of("only Visa and MasterCard are accepted");
    }
    if (month < 1 || month > 12 || card.getCreditCardExpirationYear() < 2000) {
      return Optional.of("the card has no expiration date");
    }
    if (YearMonth.of(card.getCreditCardExpirationYear(), month).isBefore(now)) {
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
