"""The log of facts, as those see it who follow it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence

import grpc
from boutique.events.v1 import orderlog_pb2, orderlog_pb2_grpc
from boutique.events.v1.order_pb2 import OrderEvent

_PAUSE_S = 0.2
_PAUSE_MAX_S = 2.0


class OtherLog(Exception):
    """What was followed so far is not in this log: whoever followed it has to begin anew."""


async def follow(
    log: orderlog_pb2_grpc.OrderLogStub, from_seq: int, types: Sequence[int] = (), who: str = "facts"
) -> AsyncIterator[OrderEvent]:
    """Every fact from a place on, each once and in order, over as many streams as it takes.

    A stream that ends or fails is opened again, from the fact after the last."""
    pause_s = _PAUSE_S
    while True:
        try:
            stream = log.Subscribe(orderlog_pb2.SubscribeRequest(from_seq=from_seq, types=types))
            async for event in stream:
                pause_s = _PAUSE_S
                if event.seq < from_seq:
                    continue  # seen already
                yield event
                from_seq = event.seq + 1
            why = "the stream ended"
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.OUT_OF_RANGE:
                raise OtherLog(error.details()) from error
            why = f"{error.code().name}: {error.details()}"
        print(f"{who}: {why}; again from seq {from_seq}", file=sys.stderr, flush=True)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_MAX_S)
