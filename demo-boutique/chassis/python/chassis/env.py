"""Settings from the environment, each checked where it is read."""

from collections.abc import Mapping

import grpc
from boutique.v1.chaos_pb2 import Knobs


def integer(env: Mapping[str, str], name: str, fallback: int) -> int:
    """The number in a variable, or the fallback where it is unset or empty."""
    text = env.get(name) or str(fallback)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{name}={text!r}: expected a number from 0")
    return int(text)


def knobs(env: Mapping[str, str]) -> Knobs:
    """The faults to start with."""
    return Knobs(
        latency_ms=integer(env, "LATENCY_MS", 0),
        error_pct=integer(env, "ERROR_PCT", 0),
        code=_code(env.get("ERROR_CODE", "")),
        slots=integer(env, "SLOTS", 0),
        service_ms=integer(env, "SERVICE_MS", 0),
    )


def _code(text: str) -> int:
    """A gRPC status, by name (UNAVAILABLE) or by number (14)."""
    for code in grpc.StatusCode:
        if text in (code.name, str(code.value[0])):
            return code.value[0]
    if not text:
        return 0
    raise ValueError(f"ERROR_CODE={text!r}: expected a gRPC status like UNAVAILABLE or 14")
