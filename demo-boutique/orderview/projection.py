"""Orders as they stand, folded from facts. Pure: no clock, no network; the same facts make the same orders."""

import hashlib
from collections.abc import Callable

from boutique.events.v1.order_pb2 import OrderEvent
from boutique.events.v1.orderview_pb2 import CANCELLED, CONFIRMED, PAID, PLACED, SHIPPED, Order, StatsResponse


class Gap(Exception):
    """A fact is missing: what follows must not be applied."""


class Projection:
    def __init__(self) -> None:
        self.as_of_seq = 0
        self._orders: dict[str, Order] = {}  # in the order of their first fact

    def apply(self, event: OrderEvent) -> None:
        """Adds one fact. One that was added before changes nothing."""
        if event.seq <= self.as_of_seq:
            return
        if event.seq != self.as_of_seq + 1:
            raise Gap(f"seq {event.seq} after {self.as_of_seq}")
        order = self._orders.setdefault(event.order_id, Order(order_id=event.order_id))
        order.version = event.version
        order.last_seq = event.seq
        fold = _FOLDS.get(event.WhichOneof("fact"))
        if fold:
            fold(order, event)
        self.as_of_seq = event.seq

    def order(self, order_id: str) -> Order | None:
        return self._orders.get(order_id)

    def latest(self, user_id: str, limit: int) -> list[Order]:
        found = []
        for order in reversed(self._orders.values()):
            if len(found) == limit:
                break
            if user_id in ("", order.user_id):
                found.append(order)
        return found

    def stats(self) -> StatsResponse:
        statuses = [order.status for order in self._orders.values()]
        confirmed, cancelled = statuses.count(CONFIRMED), statuses.count(CANCELLED)
        return StatsResponse(
            as_of_seq=self.as_of_seq,
            orders=len(statuses),
            confirmed=confirmed,
            cancelled=cancelled,
            open=len(statuses) - confirmed - cancelled,
            digest=self._digest(),
        )

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for order_id in sorted(self._orders):
            text = self._orders[order_id].SerializeToString(deterministic=True)
            digest.update(len(text).to_bytes(4, "big") + text)
        return digest.hexdigest()


def _placed(order: Order, event: OrderEvent) -> None:
    fact = event.order_placed
    order.status = PLACED
    order.user_id = fact.user_id
    order.total.CopyFrom(fact.total)
    del order.items[:]
    order.items.extend(fact.items)
    order.placed_seq = event.seq


def _authorized(order: Order, event: OrderEvent) -> None:
    order.status = PAID
    order.transaction_id = event.payment_authorized.transaction_id


def _declined(order: Order, event: OrderEvent) -> None:
    order.reason = event.payment_declined.reason


def _refunded(order: Order, _: OrderEvent) -> None:
    order.refunded = True


def _shipped(order: Order, event: OrderEvent) -> None:
    order.status = SHIPPED
    order.tracking_id = event.order_shipped.tracking_id


def _not_shipped(order: Order, event: OrderEvent) -> None:
    order.reason = event.shipment_failed.reason


def _confirmed(order: Order, _: OrderEvent) -> None:
    order.status = CONFIRMED


def _cancelled(order: Order, event: OrderEvent) -> None:
    order.status = CANCELLED
    order.reason = event.order_cancelled.reason or order.reason


# A fact that is not here says nothing that the view shows.
_FOLDS: dict[str, Callable[[Order, OrderEvent], None]] = {
    "order_placed": _placed,
    "payment_authorized": _authorized,
    "payment_declined": _declined,
    "payment_refunded": _refunded,
    "order_shipped": _shipped,
    "shipment_failed": _not_shipped,
    "order_confirmed": _confirmed,
    "order_cancelled": _cancelled,
}
