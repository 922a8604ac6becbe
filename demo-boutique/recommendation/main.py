"""Recommendation is a synchronous service with a small pool of threads: it can run out of them."""

import os

import grpc
from boutique.v1 import catalog_pb2_grpc

from chassis import env, service
from recommendation import NAME, Recommendation, add_to

_THREADS = 8
_CHANNEL = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


def _register(server: grpc.Server) -> None:
    address = os.environ.get("PRODUCT_CATALOG_SERVICE_ADDR") or "127.0.0.1:3550"
    timeout_s = env.integer(os.environ, "GRPC_TIMEOUT_MS", 10_000) / 1000
    catalog = catalog_pb2_grpc.CatalogStub(grpc.insecure_channel(address, options=_CHANNEL))
    add_to(server, Recommendation(catalog, timeout_s))


service.main(NAME, port=8081, chaos_port=9881, threads=_THREADS, register=_register)
