"""Every order that ended is mailed, and none twice, over crashes at any byte."""

import asyncio
import contextlib
import mailbox
import os
import random
import resource
import tempfile
import unittest

import grpc
from boutique.events.v1 import order_pb2, orderlog_pb2_grpc
from boutique.events.v1.order_pb2 import OrderEvent
from boutique.v1.chaos_pb2 import Knobs

from chassis.aio import Faults
from mbox import Mailbox
from notifier import notify


TRACE = "0af7651916cd43dd8448eb211c80319c"


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "mbox")

    def read(self, header: str) -> list[str]:
        """As any mail program reads it."""
        with contextlib.closing(mailbox.mbox(self.path)) as mails:
            return [mail[header] for mail in mails]

    def seqs(self) -> list[int]:
        return [int(seq) for seq in self.read("X-Order-Seq")]

    def opened(self) -> Mailbox:
        box = Mailbox(self.path)
        self.addCleanup(box.close)
        return box


class MailboxTest(Folder):
    def add(self, box: Mailbox, seq: int) -> None:
        box.add(seq, f"u{seq}@b.example", f"order {seq}", f"From here\nX-Order-Seq: 99\n-- \nThe boutique\n\n{seq}", "Thu Jan  1 00:00:00 2026")

    def test_a_fact_is_mailed_once(self):
        box = self.opened()
        for seq in (3, 3, 5, 4, 9):
            self.add(box, seq)
        box.close()
        self.assertEqual(self.seqs(), [3, 5, 9])
        self.assertEqual(self.opened().last_seq, 9)

    def test_a_new_mailbox_begins_with_the_first_fact_and_the_one_of_before_is_kept(self):
        box = self.opened()
        self.add(box, 7)
        box.begin_anew()
        self.assertEqual(box.last_seq, 0)
        self.add(box, 2)
        self.assertEqual(self.seqs(), [2])
        with contextlib.closing(mailbox.mbox(f"{self.path}.before")) as before:
            self.assertEqual([mail["X-Order-Seq"] for mail in before], ["7"])

    def test_a_disk_that_is_full_takes_no_half_of_a_mail(self):
        box = self.opened()
        self.add(box, 1)
        size = os.path.getsize(self.path)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, before[1]))
        try:
            with self.assertRaises(OSError):
                self.add(box, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        self.assertEqual((os.path.getsize(self.path), box.last_seq), (size, 1))
        self.add(box, 2)
        self.assertEqual(self.seqs(), [1, 2])

    def test_a_customer_cannot_write_headers(self):
        box = self.opened()
        box.add(1, "a@b.example\nX-Order-Seq: 7", "s\n\nFrom x", "t", "Thu Jan  1 00:00:00 2026")
        self.assertEqual(self.opened().last_seq, 1)
        self.assertEqual(self.seqs(), [1])

    def test_cut_off_anywhere_it_goes_on_with_the_mail_that_was_not_whole(self):
        box = self.opened()
        for seq in (1, 2, 3):
            self.add(box, seq)
        box.close()
        with open(self.path, "rb") as file:
            whole = file.read()
        for length in random.Random(6).sample(range(len(whole)), 150):
            with open(self.path, "wb") as file:
                file.write(whole[:length])
            again = self.opened()
            for seq in range(again.last_seq + 1, 4):
                self.add(again, seq)
            again.close()
            with open(self.path, "rb") as file:
                self.assertEqual(file.read(), whole, f"cut at {length}")


class Log(orderlog_pb2_grpc.OrderLogServicer):
    """Every order has two facts; asked for some, it gives what came before once more."""

    def __init__(self, orders: int) -> None:
        self.traces = set()
        self.ended = [
            OrderEvent(seq=2 * n, order_id=f"o{n}", version=2, trace_id=TRACE, order_confirmed=order_pb2.OrderConfirmed())
            for n in range(1, orders + 1)
        ]

    async def Subscribe(self, request, context):
        for event in self.ended:
            if event.seq >= request.from_seq - 4:
                yield event
        await asyncio.sleep(60)

    async def Read(self, request, context):
        self.traces |= {value[:36] for key, value in context.invocation_metadata() if key == "traceparent"}
        placed = order_pb2.OrderPlaced(email=f"{request.order_id}@b.example")
        yield OrderEvent(seq=1, order_id=request.order_id, version=1, order_placed=placed)


class NotifierTest(Folder, unittest.IsolatedAsyncioTestCase):
    async def test_stopped_at_any_time_it_tells_every_customer_once(self):
        neighbour, log = grpc.aio.server(), Log(20)
        orderlog_pb2_grpc.add_OrderLogServicer_to_server(log, neighbour)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{neighbour.add_insecure_port('127.0.0.1:0')}")
        await neighbour.start()
        self.addAsyncCleanup(neighbour.stop, None)
        self.addAsyncCleanup(channel.close)
        chance, box = random.Random(2), self.opened()
        for _ in range(200):
            if box.last_seq == 40:
                break
            box.close()
            box = self.opened()
            work = asyncio.create_task(notify(orderlog_pb2_grpc.OrderLogStub(channel), box, 5, Faults(Knobs())))
            await asyncio.sleep(chance.uniform(0.01, 0.1))
            self.assertFalse(work.done())
            work.cancel()
            await asyncio.wait([work])
        self.assertEqual(self.seqs(), list(range(2, 41, 2)))
        self.assertEqual(self.read("To")[0], "o1@b.example")
        self.assertEqual(log.traces, {f"00-{TRACE}-"})


if __name__ == "__main__":
    unittest.main()
