"""Lets whoever is inside the pod turn the knobs while the service runs."""

from concurrent.futures import ThreadPoolExecutor

import grpc
from boutique.v1 import chaos_pb2_grpc
from boutique.v1.chaos_pb2 import Knobs

from chassis.faults import Faults
from chassis.refusal import Refusal


class Chaos(chaos_pb2_grpc.ChaosServicer):
    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def Set(self, request: Knobs, context: grpc.ServicerContext) -> Knobs:
        try:
            self._faults.set(request)
        except Refusal as refusal:
            context.abort(refusal.code, refusal.details)
        return self._faults.knobs


def chaos_server(faults: Faults) -> grpc.Server:
    """A server with a thread of its own: the knobs turn while all others are frozen."""
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    chaos_pb2_grpc.add_ChaosServicer_to_server(Chaos(faults), server)
    return server
