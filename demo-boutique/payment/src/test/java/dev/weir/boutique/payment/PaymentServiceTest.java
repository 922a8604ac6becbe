package dev.weir.boutique.payment;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import boutique.v1.MoneyOuterClass.Money;
import boutique.v1.PaymentOuterClass.AuthorizeRequest;
import boutique.v1.PaymentOuterClass.ChargeRequest;
import boutique.v1.PaymentOuterClass.CountChargesRequest;
import boutique.v1.PaymentOuterClass.CreditCardInfo;
import boutique.v1.PaymentOuterClass.RefundRequest;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.nio.file.Path;
import java.time.Clock;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.BiConsumer;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PaymentServiceTest {
  private static final Clock NOW = Clock.fixed(Instant.parse("2026-11-25T12:00:00Z"), ZoneOffset.UTC);
  private static final CreditCardInfo CARD = CreditCardInfo.newBuilder()
      .setCreditCardNumber("4432-8015-6152-0454")
      .setCreditCardCvv(672)
      .setCreditCardExpirationYear(2039)
      .setCreditCardExpirationMonth(1)
      .build();
  private static final CreditCardInfo EXPIRED = CARD.toBuilder().setCreditCardExpirationYear(2020).build();

  @TempDir private Path folder;
  private Ledger ledger;
  private PaymentService payment;

  @BeforeEach
  void open() throws Exception {
    ledger = new Ledger(folder.resolve("ledger.txt"), 20);
    payment = new PaymentService(ledger, NOW);
  }

  @AfterEach
  void close() throws Exception {
    ledger.close();
  }

  private static Money euros(long units, int nanos) {
    return Money.newBuilder().setCurrencyCode("EUR").setUnits(units).setNanos(nanos).build();
  }

  private static <Q, A> A ask(BiConsumer<Q, StreamObserver<A>> method, Q request) {
    CompletableFuture<A> answer = new CompletableFuture<>();
    method.accept(request, new StreamObserver<>() {
      @Override
      public void onNext(A value) {
        answer.complete(value);
      }

      @Override
      public void onError(Throwable why) {
        answer.completeExceptionally(why);
      }

      @Override
      public void onCompleted() {}
    });
    return answer.join();
  }

  private String authorize(String key, Money amount, CreditCardInfo card) {
    var request = AuthorizeRequest.newBuilder().setKey(key).setAmount(amount).setCreditCard(card).build();
    return ask(payment::authorize, request).getTransactionId();
  }

  private String authorize(String key) {
    return authorize(key, euros(12, 0), CARD);
  }

  private String refund(String key) {
    return ask(payment::refund, RefundRequest.newBuilder().setKey(key).build()).getTransactionId();
  }

  /** Charges and refunds. */
  private String counted(String key) {
    var count = ask(payment::countCharges, CountChargesRequest.newBuilder().setKey(key).build());
    return count.getCharges() + " " + count.getRefunds();
  }

  private static Status.Code refused(Runnable call) {
    return Status.fromThrowable(assertThrows(CompletionException.class, call::run)).getCode();
  }

  @Test
  void aKeyIsChargedOnceHoweverManyAskAtOnce() {
    Set<String> transactions = ConcurrentHashMap.newKeySet();
    IntStream.range(0, 64).parallel().forEach(i -> transactions.add(authorize("order-1")));
    assertEquals(1, transactions.size());
    assertEquals("1 0", counted("order-1"));
  }

  @Test
  void aProcessThatComesBackChargesNobodyTwice() throws Exception {
    String first = authorize("order-1");
    ledger.close();
    open();
    assertEquals(first, authorize("order-1"));
    assertEquals("1 0", counted("order-1"));
  }

  @Test
  void aKeyStandsForOneAmount() {
    authorize("order-1", euros(12, 0), CARD);
    assertEquals(Status.Code.FAILED_PRECONDITION, refused(() -> authorize("order-1", euros(12, 1), CARD)));
    assertEquals("1 0", counted("order-1"));
  }

  @Test
  void aRefundIsMadeOnceAndIsTheEndOfItsKey() {
    String transaction = authorize("order-1");
    assertEquals(transaction, refund("order-1"));
    assertEquals(transaction, refund("order-1"));
    assertEquals("1 1", counted("order-1"));
    assertEquals(Status.Code.FAILED_PRECONDITION, refused(() -> authorize("order-1")));
  }

  /** Whoever gave up on an Authorize refunds it; the Authorize may still be under way. */
  @Test
  void aChargeThatComesAfterItsRefundIsRefused() {
    assertEquals("", refund("order-1"));
    assertEquals(Status.Code.FAILED_PRECONDITION, refused(() -> authorize("order-1")));
    assertEquals("0 1", counted("order-1"));
  }

  @Test
  void aDeclinedCardLeavesNoTraceAndAnotherOneMayBeTried() {
    assertEquals(Status.Code.FAILED_PRECONDITION, refused(() -> authorize("order-1", euros(1, 0), EXPIRED)));
    assertEquals("0 0", counted("order-1"));
    authorize("order-1", euros(1, 0), CARD);
  }

  /** Fulfilment takes only a refusal for final: anything else it would ask again until the end of time. */
  @Test
  void aCardWithAnImpossibleDateIsRefusedAsOneThatHasExpired() {
    var endless = CARD.toBuilder().setCreditCardExpirationYear(Integer.MAX_VALUE).build();
    var monthless = CARD.toBuilder().setCreditCardExpirationMonth(0).build();
    var thirteenth = CARD.toBuilder().setCreditCardExpirationMonth(13).build();
    for (CreditCardInfo card : new CreditCardInfo[] {EXPIRED, endless, monthless, thirteenth}) {
      assertEquals(
          Status.Code.FAILED_PRECONDITION, refused(() -> authorize("order-1", euros(1, 0), card)), card::toString);
    }
    assertEquals("0 0", counted("order-1"));
  }

  @Test
  void aChargeWithoutKeyIsOneEachTime() {
    var request = ChargeRequest.newBuilder().setAmount(euros(1, 0)).setCreditCard(CARD).build();
    String first = ask(payment::charge, request).getTransactionId();
    assertNotEquals(first, ask(payment::charge, request).getTransactionId());
  }

  @Test
  void nonsenseIsRefusedBeforeItIsWrittenDown() {
    for (String key : new String[] {"", "a b", "a\nCHARGE b", "k".repeat(129)}) {
      assertEquals(Status.Code.INVALID_ARGUMENT, refused(() -> authorize(key)), key);
    }
    for (Money amount : new Money[] {
      euros(0, 0), euros(-1, 0), euros(1, -1), euros(1, 1_000_000_000), Money.newBuilder().setUnits(1).build()
    }) {
      assertEquals(Status.Code.INVALID_ARGUMENT, refused(() -> authorize("order-1", amount, CARD)), amount::toString);
    }
    assertEquals("0 0", counted("order-1"));
  }

  @Test
  void aFullLedgerTakesNothingMoreButStillAnswers() {
    String first = authorize("order-0");
    IntStream.range(1, 20).forEach(i -> authorize("order-" + i));
    assertEquals(Status.Code.RESOURCE_EXHAUSTED, refused(() -> authorize("order-20")));
    assertEquals(Status.Code.RESOURCE_EXHAUSTED, refused(() -> refund("order-20")));
    assertEquals(first, authorize("order-0"));
  }
}
