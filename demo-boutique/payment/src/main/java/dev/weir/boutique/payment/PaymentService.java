package dev.weir.boutique.payment;

import boutique.v1.MoneyOuterClass.Money;
import boutique.v1.PaymentGrpc;
import boutique.v1.PaymentOuterClass.AuthorizeRequest;
import boutique.v1.PaymentOuterClass.AuthorizeResponse;
import boutique.v1.PaymentOuterClass.ChargeRequest;
import boutique.v1.PaymentOuterClass.ChargeResponse;
import boutique.v1.PaymentOuterClass.CountChargesRequest;
import boutique.v1.PaymentOuterClass.CountChargesResponse;
import boutique.v1.PaymentOuterClass.CreditCardInfo;
import boutique.v1.PaymentOuterClass.RefundRequest;
import boutique.v1.PaymentOuterClass.RefundResponse;
import dev.weir.boutique.chassis.Trace;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Clock;
import java.time.YearMonth;
import java.util.UUID;

/** boutique.v1.Payment, out of the ledger. */
final class PaymentService extends PaymentGrpc.PaymentImplBase {
  private final Ledger ledger;
  private final Clock clock;

  PaymentService(Ledger ledger, Clock clock) {
    this.ledger = ledger;
    this.clock = clock;
  }

  @Override
  public void charge(ChargeRequest request, StreamObserver<ChargeResponse> answer) {
    // A key that nobody else has: every call is a charge of its own.
    reply(answer, () -> ChargeResponse.newBuilder()
        .setTransactionId(charged("charge-" + UUID.randomUUID(), request.getAmount(), request.getCreditCard()))
        .build());
  }

  @Override
  public void authorize(AuthorizeRequest request, StreamObserver<AuthorizeResponse> answer) {
    reply(answer, () -> AuthorizeResponse.newBuilder()
        .setTransactionId(charged(checked(request.getKey()), request.getAmount(), request.getCreditCard()))
        .build());
  }

  @Override
  public void refund(RefundRequest request, StreamObserver<RefundResponse> answer) {
    reply(answer, () -> {
      String transaction = refunded(checked(request.getKey()));
      boolean was = !transaction.equals(Ledger.NO_TRANSACTION);
      return RefundResponse.newBuilder().setTransactionId(was ? transaction : "").build();
    });
  }

  @Override
  public void countCharges(CountChargesRequest request, StreamObserver<CountChargesResponse> answer) {
    reply(answer, () -> {
      Ledger.Account account = ledger.account(checked(request.getKey()));
      return CountChargesResponse.newBuilder().setCharges(account.charges()).setRefunds(account.refunds()).build();
    });
  }

  private String charged(String key, Money amount, CreditCardInfo card) throws StatusException, IOException {
    String wanted = checked(amount);
    // From looking the key up to writing it down is one step: that is what makes a key charge once.
    synchronized (ledger) {
      Ledger.Account account = ledger.account(key);
      if (account.isRefunded()) {
        throw refuse(Status.FAILED_PRECONDITION, "this key was refunded, it cannot be charged any more");
      }
      if (account.charges() > 0) {
        if (!account.amount().equals(wanted)) {
          throw refuse(Status.FAILED_PRECONDITION, "this key was charged with another amount");
        }
        return account.transaction();
      }
      var declined = Card.declined(card, YearMonth.now(clock));
      if (declined.isPresent()) {
        throw refuse(Status.FAILED_PRECONDITION, declined.get());
      }
      String transaction = UUID.randomUUID().toString();
      refuseWhenFull();
      ledger.charge(key, transaction, wanted, Trace.id());
      return transaction;
    }
  }

  private String refunded(String key) throws StatusException, IOException {
    synchronized (ledger) {
      if (!ledger.account(key).isRefunded()) {
        refuseWhenFull();
        ledger.refund(key, Trace.id());
      }
      return ledger.account(key).transaction();
    }
  }

  private void refuseWhenFull() throws StatusException {
    if (ledger.isFull()) {
      throw refuse(Status.RESOURCE_EXHAUSTED, "the ledger is full");
    }
  }

  /** Keys become words in a file. */
  private static String checked(String key) throws StatusException {
    if (!key.matches("[\\w.:-]{1,128}")) {
      throw refuse(Status.INVALID_ARGUMENT, "a key has 1 to 128 letters, digits, and any of _.:-");
    }
    return key;
  }

  /** As the ledger writes it. */
  private static String checked(Money amount) throws StatusException {
    boolean positive = amount.getUnits() >= 0 && amount.getNanos() >= 0 && amount.getUnits() + amount.getNanos() > 0;
    if (!amount.getCurrencyCode().matches("[A-Z]{3}") || !positive || amount.getNanos() > 999_999_999) {
      throw refuse(Status.INVALID_ARGUMENT, "an amount is more than nothing, of a currency with three letters");
    }
    return amount.getCurrencyCode() + " " + amount.getUnits() + " " + amount.getNanos();
  }

  private static StatusException refuse(Status status, String why) {
    return status.withDescription(why).asException();
  }

  private interface Answer<A> {
    A make() throws StatusException, IOException;
  }

  private static <A> void reply(StreamObserver<A> answer, Answer<A> of) {
    A made;
    try {
      made = of.make();
    } catch (StatusException refusal) {
      answer.onError(refusal);
      return;
    } catch (IOException broken) {
      broken.printStackTrace();
      answer.onError(Status.UNAVAILABLE.withDescription("the ledger: " + broken.getMessage()).asException());
      return;
    }
    answer.onNext(made);
    answer.onCompleted();
  }
}
