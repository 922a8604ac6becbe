"""W3C trace context: the caller's traceparent goes along on every call made for it."""

import re
import secrets

import grpc

_ID = re.compile(r"[0-9a-f]{32}")
_WELL_FORMED = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def traced(context: grpc.ServicerContext) -> tuple[tuple[str, str], ...]:
    """Metadata for a call made on behalf of this one; what is no traceparent does not go along."""
    came = [value for key, value in context.invocation_metadata() if key == "traceparent"]
    if len(came) != 1 or not _WELL_FORMED.fullmatch(came[0]):
        return ()
    return (("traceparent", came[0]),)


def resumed(trace_id: str) -> tuple[tuple[str, str], ...]:
    """Metadata for a call made because of a fact that has this trace: its span is a new one, as the old one is over."""
    if not _ID.fullmatch(trace_id):
        return ()
    return (("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"),)
