"""W3C trace context: the caller's traceparent goes along on every call made for it."""

import grpc


def traced(context: grpc.ServicerContext) -> tuple[tuple[str, str], ...]:
    """Metadata for a call made on behalf of this one."""
    return tuple((key, value) for key, value in context.invocation_metadata() if key == "traceparent")
