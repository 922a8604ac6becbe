"""The service over the wire, with a stand-in for the log that loses its streams."""

import asyncio
import unittest

import grpc
from boutique.events.v1 import orderlog_pb2_grpc, orderview_pb2, orderview_pb2_grpc
from boutique.v1.chaos_pb2 import Knobs
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis.aio import Faults, Service
from chassis.facts import OtherLog
from orderview import NAME, OrderView, live, rebuilt
from projection import Projection
from tests.test_projection import history


class Log(orderlog_pb2_grpc.OrderLogServicer):
    def __init__(self, events) -> None:
        self.events = events
        self.asked = []

    async def Subscribe(self, request, context):
        """A few facts, from one before what was asked for, and then the stream is lost."""
        self.asked.append(request.from_seq)
        if request.from_seq > len(self.events) + 1:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "this log is shorter")
        for event in self.events[max(0, request.from_seq - 2) :][:17]:
            yield event
        if len(self.asked) < 9:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "out of town")
        await asyncio.sleep(60)

    async def Read(self, request, context):
        for event in self.events:
            yield event


class OrderViewTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.events = history(5)
        self.log = Log(self.events)
        neighbour = grpc.aio.server()
        orderlog_pb2_grpc.add_OrderLogServicer_to_server(self.log, neighbour)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{neighbour.add_insecure_port('127.0.0.1:0')}")
        await neighbour.start()
        self.stub = orderlog_pb2_grpc.OrderLogStub(channel)

        self.projection, self.faults = Projection(), Faults(Knobs())
        register = lambda server: orderview_pb2_grpc.add_OrderViewServicer_to_server(OrderView(self.projection), server)  # noqa: E731
        self.service = Service([NAME], self.faults, register)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.service.server.add_insecure_port('127.0.0.1:0')}")
        await self.service.start()
        self.view = orderview_pb2_grpc.OrderViewStub(self.channel)
        self.addAsyncCleanup(neighbour.stop, None)
        self.addAsyncCleanup(channel.close)
        self.addAsyncCleanup(self.service.server.stop, None)
        self.addAsyncCleanup(self.channel.close)

    async def test_it_goes_on_after_the_last_fact_when_the_stream_is_lost(self):
        following = asyncio.create_task(live(self.projection, self.stub))
        self.addCleanup(following.cancel)
        for _ in range(2_000):
            self.assertFalse(following.done())
            if self.projection.as_of_seq == len(self.events):
                break
            await asyncio.sleep(0.01)
        self.assertEqual(self.log.asked[0], 1)
        self.assertGreater(len(self.log.asked), 2)
        again = await rebuilt(self.stub)
        self.assertEqual(await self.view.Stats(orderview_pb2.StatsRequest()), again.stats())

    async def test_a_log_that_is_another_one_now_is_not_mixed_with_the_one_of_before(self):
        for event in self.events:
            self.projection.apply(event)
        self.log.events = self.events[:3]
        with self.assertRaisesRegex(OtherLog, "this log is shorter"):
            await asyncio.wait_for(live(self.projection, self.stub), 10)

    async def test_every_answer_says_as_of_which_fact(self):
        for event in self.events[:9]:
            self.projection.apply(event)
        got = await self.view.GetOrder(orderview_pb2.GetOrderRequest(order_id="o0"))
        self.assertEqual((got.order.order_id, got.as_of_seq), ("o0", 9))
        listed = await self.view.ListOrders(orderview_pb2.ListOrdersRequest(limit=2))
        self.assertEqual((len(listed.orders), listed.as_of_seq), (2, 9))
        with self.assertRaises(grpc.aio.AioRpcError) as raised:
            await self.view.GetOrder(orderview_pb2.GetOrderRequest(order_id="none"))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
        self.assertIn("seq 9", raised.exception.details())

    async def test_knobs_touch_the_api_but_not_its_health(self):
        await self.faults.set(Knobs(error_pct=100, code=13))
        with self.assertRaises(grpc.aio.AioRpcError) as raised:
            await self.view.Stats(orderview_pb2.StatsRequest())
        self.assertEqual(raised.exception.code(), grpc.StatusCode.INTERNAL)
        health = health_pb2_grpc.HealthStub(self.channel)
        now = await health.Check(health_pb2.HealthCheckRequest(service=NAME))
        self.assertEqual(now.status, health_pb2.HealthCheckResponse.SERVING)

    async def test_whoever_watches_health_does_not_keep_a_drain_waiting(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=NAME))
        self.assertEqual((await watch.read()).status, health_pb2.HealthCheckResponse.SERVING)
        unknown = health.Watch(health_pb2.HealthCheckRequest(service="none"))
        self.assertEqual((await unknown.read()).status, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        with self.assertRaises(grpc.aio.AioRpcError) as raised:
            await health.Check(health_pb2.HealthCheckRequest(service="none"))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
        drain = asyncio.create_task(self.service.drain(60))
        self.assertEqual((await watch.read()).status, health_pb2.HealthCheckResponse.NOT_SERVING)
        self.assertIs(await watch.read(), grpc.aio.EOF)
        await asyncio.wait_for(drain, 10)

    async def test_a_frozen_call_waits_and_a_drain_tells_those_who_watch(self):
        await self.faults.set(Knobs(freeze=True))
        frozen = self.view.Stats(orderview_pb2.StatsRequest())
        watch = health_pb2_grpc.HealthStub(self.channel).Watch(health_pb2.HealthCheckRequest())
        self.assertEqual((await watch.read()).status, health_pb2.HealthCheckResponse.SERVING)
        await asyncio.sleep(0.05)
        self.assertFalse(frozen.done())
        drain = asyncio.create_task(self.service.drain(1))
        self.assertEqual((await watch.read()).status, health_pb2.HealthCheckResponse.NOT_SERVING)
        await self.faults.set(Knobs())
        self.assertEqual((await frozen).orders, 0)
        await asyncio.wait_for(drain, 3)


if __name__ == "__main__":
    unittest.main()
