"""Orderview shows orders as they stand. Its projection is in memory and made anew at every start.

    run              follows the log and serves
    run --rebuild    makes the projection anew from the log as it is now, prints its Stats, and ends
"""

import asyncio
import os
import sys

import grpc
from boutique.events.v1 import orderlog_pb2_grpc, orderview_pb2_grpc
from google.protobuf import json_format

from chassis import aio
from orderview import NAME, OrderView, live, rebuilt
from projection import Projection


def _log() -> orderlog_pb2_grpc.OrderLogStub:
    address = os.environ.get("ORDERLOG_SERVICE_ADDR") or "127.0.0.1:7300"
    return orderlog_pb2_grpc.OrderLogStub(grpc.aio.insecure_channel(address, options=aio.CHANNEL))


async def _serve() -> None:
    projection = Projection()
    await aio.run(
        "orderview",
        port=7310,
        chaos_port=9731,
        names=[NAME],
        register=lambda server: orderview_pb2_grpc.add_OrderViewServicer_to_server(OrderView(projection), server),
        background=lambda _: live(projection, _log()),
    )


async def _rebuild() -> None:
    try:
        projection = await rebuilt(_log())
    except grpc.aio.AioRpcError as error:
        sys.exit(f"orderview: {error.code().name}: {error.details()}")
    print(json_format.MessageToJson(projection.stats(), always_print_fields_with_no_presence=True, indent=None))


match sys.argv[1:]:
    case []:
        asyncio.run(_serve())
    case ["--rebuild"]:
        asyncio.run(_rebuild())
    case _:
        sys.exit(f"usage: orderview [--rebuild]\n{__doc__}")
