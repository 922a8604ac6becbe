"""Does to every call what the knobs say, before its handler runs:

    freeze → latency → error → work

Freeze and latency end when the caller gives up. Work does not: a worker does not see its
caller leave, and that is what makes an overloaded service waste its capacity. All of it
holds the thread of the call, as it would in any service of this kind.
"""

import random
import threading
import time
from collections.abc import Callable

import grpc
from boutique.v1.chaos_pb2 import Knobs

from chassis.refusal import Refusal, status_of

# Of calls that work or wait to, also for callers who left. Here each has a thread, or waits for one in the server.
WORK_MAX = 4096
_HOUR_MS = 3_600_000
_MOST = {
    "latency_ms": _HOUR_MS,
    "error_pct": 100,
    "code": grpc.StatusCode.UNAUTHENTICATED.value[0],
    "slots": 1 << 20,
    "service_ms": _HOUR_MS,
}


def checked(knobs: Knobs) -> Knobs:
    """The same knobs, or a refusal that names the one that makes no sense."""
    for name, most in _MOST.items():
        value = getattr(knobs, name)
        if not 0 <= value <= most:
            raise Refusal(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{name} is {value}, it has to be between 0 and {most}",
            )
    return knobs


class Faults:
    def __init__(self, knobs: Knobs, percent: Callable[[], int] = lambda: random.randrange(100)) -> None:
        """`percent` draws a number from 0 to 99, anew for every call."""
        self._change = threading.Condition()  # guards all below; notified when any of it changes
        self._knobs = Knobs()
        self._busy = 0  # workers at work
        self._percent = percent
        self.set(knobs)

    @property
    def knobs(self) -> Knobs:
        """In force now. Replaced and never changed, so keep it as long as you like."""
        with self._change:
            return self._knobs

    def set(self, knobs: Knobs) -> None:
        """Replaces all knobs at once, also for the calls that are frozen or in line now."""
        with self._change:
            self._knobs = checked(knobs)
            self._change.notify_all()

    def before(self, context: grpc.ServicerContext) -> None:
        """Holds, fails or delays one call as the knobs say."""
        gone = self._gone(context)
        with self._change:
            while self._knobs.freeze and not gone.is_set():
                self._change.wait()
            knobs = self._knobs
        if gone.wait(knobs.latency_ms / 1000):
            raise Refusal(grpc.StatusCode.CANCELLED, "the caller gave up")
        if self._percent() < knobs.error_pct:
            raise Refusal(
                status_of(knobs.code) if knobs.code else grpc.StatusCode.UNAVAILABLE,
                "chaos: this call was told to fail",
            )
        self._work()

    def _gone(self, context: grpc.ServicerContext) -> threading.Event:
        """Set once the call is over, whoever ended it."""
        gone = threading.Event()

        def leave() -> None:
            gone.set()
            with self._change:
                self._change.notify_all()

        if not context.add_callback(leave):
            gone.set()
        return gone

    def _work(self) -> None:
        """Occupies one of the slots for the service time."""
        with self._change:
            while 0 < self._knobs.slots <= self._busy:
                self._change.wait()
            self._busy += 1
            service_s = self._knobs.service_ms / 1000
        time.sleep(service_s)
        with self._change:
            self._busy -= 1
            self._change.notify_all()
