"""One gRPC server of the shop, from its first call to its orderly end."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from chassis import env
from chassis.calls import Calls
from chassis.chaos import chaos_server
from chassis.faults import WORK_MAX, Faults

_OPTIONS = [("grpc.so_reuseport", 0)]  # a second process on the same port is a mistake


class Service:
    def __init__(
        self,
        name: str,
        threads: int,
        faults: Faults,
        register: Callable[[grpc.Server], None],
        calls_max: int = WORK_MAX,
    ) -> None:
        """`name` is the full name of the API that `register` adds; of its calls, beyond `calls_max` that run
        or wait for a thread are refused."""
        self._calls = Calls(faults)
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self.server = grpc.server(
            ThreadPoolExecutor(threads),
            interceptors=[self._calls],
            options=_OPTIONS,
            maximum_concurrent_rpcs=calls_max,
        )
        register(self.server)
        for each in ("", name):
            self._health.set(each, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)

    def drain(self, grace_s: float) -> None:
        """Accepts nothing more and finishes what runs. What never ends, like watching health, is cut."""
        self._health.enter_graceful_shutdown()
        self.server.stop(grace_s)
        self._calls.wait_until_idle(grace_s)
        self.server.stop(None).wait()


def main(name: str, port: int, chaos_port: int, threads: int, register: Callable[[grpc.Server], None]) -> None:
    """Runs a service as the environment says until SIGTERM, and does not return."""
    asked, short = _signalled(), name.rpartition(".")[2].lower()
    try:
        port, chaos_port = env.integer(os.environ, "PORT", port), env.integer(os.environ, "CHAOS_PORT", chaos_port)
        grace_s = env.integer(os.environ, "DRAIN_SECONDS", 10)
        faults = Faults(env.knobs(os.environ))
        service = Service(name, threads, faults, register)
        service.server.add_insecure_port(f"[::]:{port}")  # both families, or the one that there is
        knobs = chaos_server(faults)
        if chaos_port:
            knobs.add_insecure_port(f"127.0.0.1:{chaos_port}")
    except (ValueError, RuntimeError) as error:
        sys.exit(f"{short}: {error}")
    knobs.start()
    service.server.start()
    print(f"{short}: serving on :{port}, knobs on 127.0.0.1:{chaos_port}", flush=True)

    asked.wait()
    print(f"{short}: draining", flush=True)
    service.drain(grace_s)
    os._exit(0)  # a thread that is still in its work would keep the interpreter waiting


def _signalled() -> threading.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    asked = threading.Event()

    def on_signal(*_: object) -> None:
        if asked.is_set():
            os._exit(1)
        asked.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return asked
