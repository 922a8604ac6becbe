"""The calls that run, each with the faults before it."""

import threading
from collections.abc import Callable

import grpc

from chassis.faults import Faults
from chassis.refusal import Refusal

# Probes see the process, not the knobs.
_HEALTH = "/grpc.health.v1.Health/"


class Calls(grpc.ServerInterceptor):
    """Guards every unary call but those for health, and knows when none runs."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._idle = threading.Condition()
        self._running = 0

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        if handler is None or handler.unary_unary is None or details.method.startswith(_HEALTH):
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._guarded(handler.unary_unary), handler.request_deserializer, handler.response_serializer
        )

    def wait_until_idle(self, timeout_s: float) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._running == 0, timeout_s)

    def _guarded(self, answer: Callable) -> Callable:
        def guarded(request, context: grpc.ServicerContext):
            with self._idle:
                self._running += 1
            # Not when the handler returns: its answer still has to be sent then.
            if not context.add_callback(self._over):
                self._over()
            try:
                self._faults.before(context)
                return answer(request, context)
            except Refusal as refusal:
                context.abort(refusal.code, refusal.details)

        return guarded

    def _over(self) -> None:
        with self._idle:
            self._running -= 1
            self._idle.notify_all()
