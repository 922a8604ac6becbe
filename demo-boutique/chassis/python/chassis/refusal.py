"""A call that ends with a gRPC status other than OK, and why."""

import grpc


class Refusal(Exception):
    """Raise it from a handler."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details


def status_of(number: int) -> grpc.StatusCode:
    """The status with this number on the wire."""
    return next(code for code in grpc.StatusCode if code.value[0] == number)
