"""boutique.v1.Recommendation: what else the visitor might like, out of what the catalog sells."""

import random
from collections.abc import Callable, Sequence

import grpc
from boutique.v1 import catalog_pb2, catalog_pb2_grpc, recommendation_pb2, recommendation_pb2_grpc

from chassis.refusal import Refusal
from chassis.trace import traced

NAME = "boutique.v1.Recommendation"
# Online Boutique's name for the same API: its storefront can call this service.
_ALIAS = "hipstershop.RecommendationService"

_RECOMMENDED_MAX = 4

Pick = Callable[[Sequence[str], int], list[str]]


class Recommendation(recommendation_pb2_grpc.RecommendationServicer):
    def __init__(self, catalog: catalog_pb2_grpc.CatalogStub, timeout_s: float, pick: Pick = random.sample) -> None:
        self._catalog = catalog
        self._timeout_s = timeout_s
        self._pick = pick

    def ListRecommendations(self, request, context: grpc.ServicerContext):
        known = set(request.product_ids)
        others = [product.id for product in self._products(context) if product.id not in known]
        picked = self._pick(others, min(len(others), _RECOMMENDED_MAX))
        return recommendation_pb2.ListRecommendationsResponse(product_ids=picked)

    def _products(self, context: grpc.ServicerContext):
        try:
            return self._catalog.ListProducts(
                catalog_pb2.ListProductsRequest(), timeout=self._timeout_s, metadata=traced(context)
            ).products
        except grpc.RpcError as error:
            raise Refusal(error.code(), f"catalog: {error.details()}") from error


def add_to(server: grpc.Server, recommendation: Recommendation) -> None:
    recommendation_pb2_grpc.add_RecommendationServicer_to_server(recommendation, server)
    method = grpc.unary_unary_rpc_method_handler(
        recommendation.ListRecommendations,
        recommendation_pb2.ListRecommendationsRequest.FromString,
        recommendation_pb2.ListRecommendationsResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(_ALIAS, {"ListRecommendations": method})]
    )
