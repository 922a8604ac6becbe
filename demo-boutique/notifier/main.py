"""Notifier mails customers how their orders ended, into an mbox file, and takes its time over it."""

import asyncio
import os

import grpc
from boutique.events.v1 import orderlog_pb2_grpc

from chassis import aio, env
from mbox import Mailbox
from notifier import notify


async def _main() -> None:
    address = os.environ.get("ORDERLOG_SERVICE_ADDR") or "127.0.0.1:7300"
    notify_ms = env.integer(os.environ, "NOTIFY_MS", 500)
    mailbox = Mailbox(os.environ.get("MBOX_FILE") or "notifier.mbox")
    log = orderlog_pb2_grpc.OrderLogStub(grpc.aio.insecure_channel(address, options=aio.CHANNEL))
    await aio.run(
        "notifier",
        port=7330,
        chaos_port=9733,
        names=[],
        register=lambda _: None,
        background=lambda faults: notify(log, mailbox, notify_ms, faults),
    )


asyncio.run(_main())
