"""The projection: the same whatever way the facts came."""

import random
import unittest

from boutique.events.v1 import order_pb2, orderview_pb2
from boutique.events.v1.order_pb2 import OrderEvent

from projection import Gap, Projection

_ENDS = [
    [],
    [OrderEvent(payment_authorized=order_pb2.PaymentAuthorized(transaction_id="t"))],
    [
        OrderEvent(payment_authorized=order_pb2.PaymentAuthorized(transaction_id="t")),
        OrderEvent(order_shipped=order_pb2.OrderShipped(tracking_id="p")),
        OrderEvent(order_confirmed=order_pb2.OrderConfirmed()),
    ],
    [
        OrderEvent(payment_declined=order_pb2.PaymentDeclined(reason="no money")),
        OrderEvent(order_cancelled=order_pb2.OrderCancelled()),
    ],
    [
        OrderEvent(payment_authorized=order_pb2.PaymentAuthorized(transaction_id="t")),
        OrderEvent(shipment_failed=order_pb2.ShipmentFailed(reason="too far")),
        OrderEvent(payment_refunded=order_pb2.PaymentRefunded(transaction_id="t")),
        OrderEvent(order_cancelled=order_pb2.OrderCancelled(reason="too far")),
    ],
]


def history(seed: int, orders: int = 30) -> list[OrderEvent]:
    """Facts of orders that run side by side, as a log has them."""
    chance = random.Random(seed)
    open_orders = []
    for number in range(orders):
        placed = order_pb2.OrderPlaced(user_id=f"u{number % 3}", email="a@b.example")
        placed.items.add(product_id="mug", quantity=1 + number % 4)
        facts = [OrderEvent(order_placed=placed), *chance.choice(_ENDS)]
        open_orders.append((f"o{number}", list(enumerate(facts, 1))))
    events = []
    while open_orders:
        order_id, facts = chance.choice(open_orders[:5])
        version, fact = facts.pop(0)
        event = OrderEvent(seq=len(events) + 1, order_id=order_id, version=version)
        event.MergeFrom(fact)
        events.append(event)
        open_orders = [each for each in open_orders if each[1]]
    return events


def projected(events) -> Projection:
    projection = Projection()
    for event in events:
        projection.apply(event)
    return projection


class ProjectionTest(unittest.TestCase):
    def test_with_facts_delivered_again_and_again_it_is_what_a_rebuilt_one_is(self):
        for seed in range(50):
            events, chance, live = history(seed), random.Random(seed), Projection()
            while live.as_of_seq < len(events):
                # As after a lost stream: again from some place that was seen already, or the next.
                begin = chance.randint(0, live.as_of_seq)
                for event in events[begin : begin + chance.randint(1, 40)]:
                    live.apply(event)
            self.assertEqual(live.stats(), projected(events).stats(), f"seed {seed}")

    def test_a_missing_fact_is_an_error_and_changes_nothing(self):
        events = history(1)
        projection = projected(events[:5])
        before = projection.stats()
        with self.assertRaises(Gap):
            projection.apply(events[6])
        self.assertEqual(projection.stats(), before)

    def test_two_different_histories_have_different_digests(self):
        self.assertNotEqual(projected(history(1)).stats().digest, projected(history(2)).stats().digest)

    def test_it_counts_every_order_once(self):
        stats = projected(history(3)).stats()
        self.assertEqual(stats.orders, 30)
        self.assertEqual(stats.confirmed + stats.cancelled + stats.open, 30)
        self.assertGreater(min(stats.confirmed, stats.cancelled, stats.open), 0)

    def test_an_order_shows_what_became_of_it(self):
        facts = [OrderEvent(order_placed=order_pb2.OrderPlaced(user_id="u")), *_ENDS[4]]
        events = [OrderEvent(seq=number, version=number, order_id="o") for number in range(1, 6)]
        for event, fact in zip(events, facts, strict=True):
            event.MergeFrom(fact)
        order = projected(events).order("o")
        self.assertEqual(order.status, orderview_pb2.CANCELLED)
        self.assertTrue(order.refunded)
        self.assertEqual((order.reason, order.version, order.placed_seq, order.last_seq), ("too far", 5, 1, 5))

    def test_the_latest_orders_come_first_and_may_be_of_one_user(self):
        projection = projected(history(4))
        self.assertEqual([order.order_id for order in projection.latest("", 2)][0], projection.latest("", 1)[0].order_id)
        of_one = projection.latest("u1", 100)
        self.assertEqual({order.user_id for order in of_one}, {"u1"})
        placed = [order.placed_seq for order in of_one]
        self.assertEqual(placed, sorted(placed, reverse=True))


if __name__ == "__main__":
    unittest.main()
