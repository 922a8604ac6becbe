"""An app for pods that were written for other apps: HTTP on some ports, gRPC's health service on others.

    fixture.py http:8080 grpc:9555 https:8443:KEY-AND-CERTIFICATE.pem
"""

import ssl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{self.path} {self.headers.get('cookie', '')}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Probes come every second."""


def serve_grpc(port: int) -> None:
    servicer = health.HealthServicer()
    for service in ("", "ads"):
        servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    server = grpc.server(ThreadPoolExecutor(4))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"[::]:{port}")
    server.start()
    server.wait_for_termination()


def serve_http(port: int) -> None:
    ThreadingHTTPServer(("", port), Answer).serve_forever()


def serve_https(port: int, chain: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = ThreadingHTTPServer(("", port), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


SERVE = {"grpc": serve_grpc, "http": serve_http, "https": serve_https}

servers = []
for argument in sys.argv[1:]:
    protocol, port, *more = argument.split(":")
    servers.append(threading.Thread(target=SERVE[protocol], args=[int(port), *more]))
for server in servers:
    server.start()
for server in servers:
    server.join()
