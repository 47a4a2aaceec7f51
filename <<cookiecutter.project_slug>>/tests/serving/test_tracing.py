from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.testclient import TestClient

from <<cookiecutter.package_name>>.serving import create_app
from <<cookiecutter.package_name>>.serving.app import ServingApp
from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import Models, publish


def test_requests_are_traced_where_a_collector_is_named(
    settings: Settings, models: Models, eventually: Any
) -> None:
    spans: list[str] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                content = gzip.decompress(content)
            for found in ExportTraceServiceRequest.FromString(content).resource_spans:
                spans.extend(span.name for scope in found.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    publish(settings, "1", models.get("binary"))
    app = create_app(settings.model_copy(update={"traces_endpoint": endpoint}))
    with TestClient(app) as client:
        assert client.post("/predict", json={"features": [1.0, 2]}).status_code == 200
    assert isinstance(app, ServingApp)
    assert app.is_fast is False
    eventually(lambda: "POST /predict" in spans)
    collector.shutdown()
    collector.server_close()
