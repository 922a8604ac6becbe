"""The service over the wire, with a stand-in for the catalog."""

import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import grpc
from boutique.v1 import catalog_pb2, catalog_pb2_grpc, recommendation_pb2, recommendation_pb2_grpc
from boutique.v1.chaos_pb2 import Knobs
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis.faults import Faults
from chassis.service import Service
from recommendation import NAME, Recommendation, add_to

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Catalog(catalog_pb2_grpc.CatalogServicer):
    def __init__(self) -> None:
        self.traceparents = []
        self.down = False

    def ListProducts(self, request, context):
        self.traceparents += [value for key, value in context.invocation_metadata() if key == "traceparent"]
        if self.down:
            context.abort(grpc.StatusCode.UNAVAILABLE, "out of town")
        return catalog_pb2.ListProductsResponse(products=[catalog_pb2.Product(id=i) for i in "abcdefg"])


class RecommendationTest(unittest.TestCase):
    def setUp(self):
        self.catalog = Catalog()
        neighbour = grpc.server(ThreadPoolExecutor(2))
        catalog_pb2_grpc.add_CatalogServicer_to_server(self.catalog, neighbour)
        catalog_channel = grpc.insecure_channel(f"127.0.0.1:{neighbour.add_insecure_port('127.0.0.1:0')}")
        neighbour.start()

        self.faults = Faults(Knobs())
        first = lambda ids, count: list(ids)[:count]  # noqa: E731
        self.recommendation = Recommendation(catalog_pb2_grpc.CatalogStub(catalog_channel), timeout_s=2, pick=first)
        self.service = Service(NAME, 2, self.faults, lambda server: add_to(server, self.recommendation))
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.service.server.add_insecure_port('127.0.0.1:0')}")
        self.service.server.start()
        self.stub = recommendation_pb2_grpc.RecommendationStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        for close in (self.channel.close, catalog_channel.close, lambda: neighbour.stop(None)):
            self.addCleanup(close)
        self.addCleanup(lambda: self.service.server.stop(None))

    def recommend(self, *known: str, **how):
        request = recommendation_pb2.ListRecommendationsRequest(user_id="u", product_ids=known)
        return self.stub.ListRecommendations(request, timeout=5, **how)

    def test_it_recommends_four_others_of_what_the_catalog_sells(self):
        self.assertEqual(list(self.recommend("a", "c").product_ids), ["b", "d", "e", "f"])

    def test_it_answers_under_the_name_of_online_boutique_too(self):
        alias = self.channel.unary_unary(
            "/hipstershop.RecommendationService/ListRecommendations",
            recommendation_pb2.ListRecommendationsRequest.SerializeToString,
            recommendation_pb2.ListRecommendationsResponse.FromString,
        )
        self.assertEqual(len(alias(recommendation_pb2.ListRecommendationsRequest()).product_ids), 4)

    def test_the_traceparent_goes_along_to_the_catalog_and_nothing_else_takes_its_place(self):
        self.recommend(metadata=[("traceparent", TRACEPARENT)])
        self.recommend()
        self.recommend(metadata=[("traceparent", "nonsense")])
        self.assertEqual(self.catalog.traceparents, [TRACEPARENT])

    def test_a_failing_catalog_is_named_with_its_status(self):
        self.catalog.down = True
        with self.assertRaises(grpc.RpcError) as raised:
            self.recommend()
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(raised.exception.details(), "catalog: out of town")

    def test_knobs_touch_the_api_but_not_its_health(self):
        self.faults.set(Knobs(error_pct=100, code=13))
        with self.assertRaises(grpc.RpcError) as raised:
            self.recommend()
        self.assertEqual(raised.exception.code(), grpc.StatusCode.INTERNAL)
        now = self.health.Check(health_pb2.HealthCheckRequest(service=NAME), timeout=5)
        self.assertEqual(now.status, health_pb2.HealthCheckResponse.SERVING)

    def test_the_line_for_the_threads_has_an_end(self):
        faults = Faults(Knobs(freeze=True))
        service = Service(NAME, 1, faults, lambda server: add_to(server, self.recommendation), calls_max=3)
        channel = grpc.insecure_channel(f"127.0.0.1:{service.server.add_insecure_port('127.0.0.1:0')}")
        service.server.start()
        self.addCleanup(lambda: service.server.stop(None))
        self.addCleanup(channel.close)
        stub, request = recommendation_pb2_grpc.RecommendationStub(channel), recommendation_pb2.ListRecommendationsRequest()
        calls = [stub.ListRecommendations.future(request, timeout=30) for _ in range(4)]
        refused = threading.Event()
        for call in calls:
            call.add_done_callback(lambda _: refused.set())
        self.assertTrue(refused.wait(10), "the line has no end")
        faults.set(Knobs())
        codes = sorted(call.code().name for call in calls)
        self.assertEqual(codes, ["OK", "OK", "OK", "RESOURCE_EXHAUSTED"])

    def test_a_drain_finishes_the_call_in_flight_and_does_not_wait_for_watchers(self):
        watcher = self.health.Watch(health_pb2.HealthCheckRequest(service=NAME), timeout=60)
        self.assertEqual(next(watcher).status, health_pb2.HealthCheckResponse.SERVING)
        self.faults.set(Knobs(freeze=True))
        self.addCleanup(lambda: self.faults.set(Knobs()))
        request = recommendation_pb2.ListRecommendationsRequest()
        in_flight = self.stub.ListRecommendations.future(request, timeout=30)
        patience = time.monotonic() + 10
        while self.service._calls._running == 0:
            self.assertLess(time.monotonic(), patience, "the call did not arrive")
            time.sleep(0.001)

        drained = threading.Event()
        threading.Thread(target=lambda: (self.service.drain(60), drained.set()), daemon=True).start()
        self.assertEqual(next(watcher).status, health_pb2.HealthCheckResponse.NOT_SERVING)
        self.assertFalse(drained.wait(0.05), "a call was in flight")
        self.faults.set(Knobs())
        self.assertEqual(len(in_flight.result().product_ids), 4)
        self.assertTrue(drained.wait(20), "it waited for its grace")


if __name__ == "__main__":
    unittest.main()
