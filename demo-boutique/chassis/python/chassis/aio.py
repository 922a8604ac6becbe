"""The same for services on asyncio: one thread, and every wait gives way to the others."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
from boutique.v1 import chaos_pb2_grpc
from boutique.v1.chaos_pb2 import Knobs
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from chassis import env
from chassis.faults import WORK_MAX, checked
from chassis.refusal import Refusal, status_of

_OPTIONS = [("grpc.so_reuseport", 0)]  # a second process on the same port is a mistake
# For clients: the shop has no proxies, and a service that was away is looked for again soon.
CHANNEL = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]
# Probes see the process, not the knobs.
_HEALTH = "/grpc.health.v1.Health/"


class Faults(chaos_pb2_grpc.ChaosServicer):
    """The knobs and what they do: freeze → latency → error → work, see chassis.faults."""

    def __init__(self, knobs: Knobs, percent: Callable[[], int] = lambda: random.randrange(100)) -> None:
        self.knobs = checked(knobs)
        self._percent = percent
        self._busy = 0  # workers at work
        self._working = 0  # calls that have one of these or wait for one
        self._change = asyncio.Condition()  # notified when any of it changes

    async def set(self, knobs: Knobs) -> None:
        """Replaces all knobs at once, also for the calls that are frozen or in line now."""
        self.knobs = checked(knobs)
        async with self._change:
            self._change.notify_all()

    async def before(self) -> None:
        """Holds, fails or delays one call as the knobs say. Cancelled with its caller, but for the work."""
        async with self._change:
            await self._change.wait_for(lambda: not self.knobs.freeze)
        knobs = self.knobs
        await asyncio.sleep(knobs.latency_ms / 1000)
        if self._percent() < knobs.error_pct:
            code = status_of(knobs.code) if knobs.code else grpc.StatusCode.UNAVAILABLE
            raise Refusal(code, "chaos: this call was told to fail")
        if knobs.slots or knobs.service_ms:
            if self._working >= WORK_MAX:
                raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{WORK_MAX} calls wait for a slot already")
            self._working += 1
            await asyncio.shield(asyncio.create_task(self._work()))

    async def _work(self) -> None:
        """Occupies one of the slots for the service time."""
        async with self._change:
            await self._change.wait_for(lambda: not 0 < self.knobs.slots <= self._busy)
        self._busy += 1
        try:
            await asyncio.sleep(self.knobs.service_ms / 1000)
        finally:
            self._busy -= 1
            self._working -= 1
            async with self._change:
                self._change.notify_all()

    async def Set(self, request: Knobs, context: grpc.aio.ServicerContext) -> Knobs:
        try:
            await self.set(request)
        except Refusal as refusal:
            await context.abort(refusal.code, refusal.details)
        return self.knobs


class _Calls(grpc.aio.ServerInterceptor):
    """Puts the faults before every unary call but those for health."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def intercept_service(self, continuation, details):
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None or details.method.startswith(_HEALTH):
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._guarded(handler.unary_unary), handler.request_deserializer, handler.response_serializer
        )

    def _guarded(self, answer: Callable) -> Callable:
        async def guarded(request, context: grpc.aio.ServicerContext):
            try:
                await self._faults.before()
                return await answer(request, context)
            except Refusal as refusal:
                await context.abort(refusal.code, refusal.details)

        return guarded


class Health(health_pb2_grpc.HealthServicer):
    """Watchers' streams end when the service drains: an open one would keep it waiting for all of its grace."""

    def __init__(self, names: list[str]) -> None:
        """`names` are the full names that have a health; "" is the process as a whole."""
        self._names = {"", *names}
        self._draining = asyncio.Event()

    def drain(self) -> None:
        self._draining.set()

    async def Check(self, request, context: grpc.aio.ServicerContext) -> HealthCheckResponse:
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return self._of(request.service)

    async def Watch(self, request, context: grpc.aio.ServicerContext) -> AsyncIterator[HealthCheckResponse]:
        yield self._of(request.service)
        if not self._draining.is_set():
            await self._draining.wait()
            yield self._of(request.service)

    def _of(self, name: str) -> HealthCheckResponse:
        if name not in self._names:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        draining = self._draining.is_set()
        return HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING if draining else HealthCheckResponse.SERVING)


class Service:
    """A server, and the work that goes on beside it."""

    def __init__(self, names: list[str], faults: Faults, register: Callable[[grpc.aio.Server], None]) -> None:
        """`names` are the full names of the APIs that `register` adds."""
        self._health = Health(names)
        self.server = grpc.aio.server(interceptors=[_Calls(faults)], options=_OPTIONS)
        register(self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)

    async def start(self) -> None:
        await self.server.start()

    async def drain(self, grace_s: float) -> None:
        """Accepts nothing more and finishes what runs."""
        self._health.drain()
        await self.server.stop(grace_s)


async def run(
    short: str,
    port: int,
    chaos_port: int,
    names: list[str],
    register: Callable[[grpc.aio.Server], None],
    background: Callable[[Faults], Awaitable[None]],
) -> None:
    """Runs a service as the environment says until SIGTERM, and does not return.

    `background` goes on beside the server; the service ends with an error when it does."""
    asked = _signalled()
    try:
        port, chaos_port = env.integer(os.environ, "PORT", port), env.integer(os.environ, "CHAOS_PORT", chaos_port)
        grace_s = env.integer(os.environ, "DRAIN_SECONDS", 10)
        faults = Faults(env.knobs(os.environ))
        service = Service(names, faults, register)
        port = service.server.add_insecure_port(f"[::]:{port}")  # both families, or the one that there is
        knobs = grpc.aio.server()
        chaos_pb2_grpc.add_ChaosServicer_to_server(faults, knobs)
        if chaos_port:
            knobs.add_insecure_port(f"127.0.0.1:{chaos_port}")
    except (ValueError, RuntimeError, Refusal) as error:
        sys.exit(f"{short}: {error}")
    await knobs.start()
    await service.start()
    print(f"{short}: serving on :{port}, knobs on 127.0.0.1:{chaos_port}", flush=True)

    work = asyncio.create_task(background(faults))
    stop = asyncio.create_task(asked.wait())
    await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        print(f"{short}: {work.exception() or 'its work has ended'}", file=sys.stderr, flush=True)
        os._exit(1)
    print(f"{short}: draining", flush=True)
    work.cancel()
    # Here and not after the server: what is half done is finished or given up in order.
    await asyncio.wait([work], timeout=grace_s)
    await service.drain(grace_s)
    os._exit(0)  # gRPC's own threads may still be at something


def _signalled() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            os._exit(1)
        asked.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, on_signal)
    return asked
