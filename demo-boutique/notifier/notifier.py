"""Tells customers how their orders ended, slowly: a subscriber that the others must not have to wait for."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
from boutique.events.v1 import orderlog_pb2, orderlog_pb2_grpc
from boutique.events.v1.order_pb2 import ORDER_CANCELLED, ORDER_CONFIRMED, OrderEvent, OrderPlaced

from chassis.aio import Faults
from chassis.facts import OtherLog, follow
from chassis.refusal import Refusal
from chassis.trace import resumed
from mbox import Mailbox

_PAUSE_S = 0.5

Answer = TypeVar("Answer")


async def notify(log: orderlog_pb2_grpc.OrderLogStub, mailbox: Mailbox, notify_ms: int, faults: Faults) -> None:
    """One mail for each order that ended, from the last that was told, for ever. Another log has a mailbox of its own."""
    while True:
        try:
            await _follow(log, mailbox, notify_ms, faults)
        except OtherLog as other:
            print(f"notifier: {other}; a new mailbox", file=sys.stderr, flush=True)
            mailbox.begin_anew()


async def _follow(log: orderlog_pb2_grpc.OrderLogStub, mailbox: Mailbox, notify_ms: int, faults: Faults) -> None:
    facts = follow(log, mailbox.last_seq + 1, [ORDER_CONFIRMED, ORDER_CANCELLED], who="notifier")
    async for event in facts:
        placed = await _patiently(lambda event=event: _placed(log, event, faults))
        await asyncio.sleep(notify_ms / 1000)
        subject, text = mail(event)
        mailbox.add(event.seq, placed.email, subject, text, event.at.ToDatetime().strftime("%a %b %d %H:%M:%S %Y"))


def mail(event: OrderEvent) -> tuple[str, str]:
    """Subject and text."""
    if event.HasField("order_confirmed"):
        return f"Your order {event.order_id}", "It is paid for and on its way."
    return f"Your order {event.order_id} was cancelled", f"You have not paid for it, or have your money back. The reason: {event.order_cancelled.reason}"


async def _placed(log: orderlog_pb2_grpc.OrderLogStub, event: OrderEvent, faults: Faults) -> OrderPlaced:
    """The first fact of the same order: who is to be told."""
    await faults.before()
    asked = orderlog_pb2.ReadRequest(order_id=event.order_id, limit=1)
    async for first in log.Read(asked, timeout=5, metadata=resumed(event.trace_id)):
        return first.order_placed
    return OrderPlaced()


async def _patiently(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Until it succeeds: mails are late rather than lost."""
    while True:
        try:
            return await work()
        except (grpc.aio.AioRpcError, Refusal) as error:
            print(f"notifier: {error}; again", file=sys.stderr, flush=True)
            await asyncio.sleep(_PAUSE_S)
