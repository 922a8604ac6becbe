"""boutique.events.v1.OrderView: reads of a projection that follows the log."""

import grpc
from boutique.events.v1 import orderlog_pb2, orderlog_pb2_grpc, orderview_pb2, orderview_pb2_grpc

from chassis.facts import follow
from chassis.refusal import Refusal
from projection import Projection

NAME = "boutique.events.v1.OrderView"

_LIMIT = 50
_LIMIT_MAX = 500


class OrderView(orderview_pb2_grpc.OrderViewServicer):
    def __init__(self, projection: Projection) -> None:
        self._projection = projection

    async def GetOrder(self, request, context: grpc.aio.ServicerContext):
        as_of_seq = self._projection.as_of_seq
        order = self._projection.order(request.order_id)
        if order is None:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"no order {request.order_id!r} as of seq {as_of_seq}")
        return orderview_pb2.GetOrderResponse(order=order, as_of_seq=as_of_seq)

    async def ListOrders(self, request, context: grpc.aio.ServicerContext):
        orders = self._projection.latest(request.user_id, min(request.limit or _LIMIT, _LIMIT_MAX))
        return orderview_pb2.ListOrdersResponse(orders=orders, as_of_seq=self._projection.as_of_seq)

    async def Stats(self, request, context: grpc.aio.ServicerContext):
        return self._projection.stats()


async def live(projection: Projection, log: orderlog_pb2_grpc.OrderLogStub) -> None:
    """Keeps the projection up to date, for ever. Where the log is another one now (OtherLog), the service has to start anew."""
    async for event in follow(log, projection.as_of_seq + 1, who="orderview"):
        projection.apply(event)


async def rebuilt(log: orderlog_pb2_grpc.OrderLogStub) -> Projection:
    """A new projection, of all that is in the log now."""
    projection = Projection()
    async for event in log.Read(orderlog_pb2.ReadRequest(from_seq=1)):
        projection.apply(event)
    return projection
