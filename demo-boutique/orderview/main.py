"""Orderview shows orders as they stand. Its projection is in memory and made anew at every start.

    run              follows the log and serves
    run --rebuild    makes the projection anew from the log as it is now, prints its Stats, and ends
    run --stats      prints the Stats of the one that runs here
    run --facts      prints the log as it is now, a fact a line: seq, order, what happened
"""

import asyncio
import os
import sys
from collections.abc import Coroutine

import grpc
from boutique.events.v1 import orderlog_pb2, orderlog_pb2_grpc, orderview_pb2, orderview_pb2_grpc
from google.protobuf import json_format

from chassis import aio
from orderview import NAME, OrderView, live, rebuilt
from projection import Projection


_PORT = 7310


def _log() -> orderlog_pb2_grpc.OrderLogStub:
    address = os.environ.get("ORDERLOG_SERVICE_ADDR") or "127.0.0.1:7300"
    return orderlog_pb2_grpc.OrderLogStub(grpc.aio.insecure_channel(address, options=aio.CHANNEL))


async def _serve() -> None:
    projection = Projection()
    await aio.run(
        "orderview",
        port=_PORT,
        chaos_port=9731,
        names=[NAME],
        register=lambda server: orderview_pb2_grpc.add_OrderViewServicer_to_server(OrderView(projection), server),
        background=lambda _: live(projection, _log()),
    )


async def _rebuild() -> None:
    _print((await rebuilt(_log())).stats())


async def _stats() -> None:
    address = f"127.0.0.1:{os.environ.get('PORT') or _PORT}"
    view = orderview_pb2_grpc.OrderViewStub(grpc.aio.insecure_channel(address))
    _print(await view.Stats(orderview_pb2.StatsRequest(), timeout=5))


def _print(stats: orderview_pb2.StatsResponse) -> None:
    print(json_format.MessageToJson(stats, always_print_fields_with_no_presence=True, indent=None))


async def _facts() -> None:
    # Not what is in them: an order has a card in it.
    async for event in _log().Read(orderlog_pb2.ReadRequest(from_seq=1)):
        print(event.seq, event.order_id, event.WhichOneof("fact"))


def _ask(question: Coroutine) -> None:
    try:
        asyncio.run(question)
    except grpc.aio.AioRpcError as error:
        sys.exit(f"orderview: {error.code().name}: {error.details()}")


match sys.argv[1:]:
    case []:
        asyncio.run(_serve())
    case ["--rebuild"]:
        _ask(_rebuild())
    case ["--stats"]:
        _ask(_stats())
    case ["--facts"]:
        _ask(_facts())
    case _:
        sys.exit(f"usage: orderview [--rebuild | --stats | --facts]\n{__doc__}")
