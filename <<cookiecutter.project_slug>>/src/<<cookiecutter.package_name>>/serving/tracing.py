"""OpenTelemetry traces of the server's requests, sent where a setting says."""

from __future__ import annotations

from fastapi import FastAPI

from ..errors import ProjectError
from ..settings import Settings


class TracingError(ProjectError):
    """Traces are asked for and cannot be made."""


def trace(app: FastAPI, settings: Settings) -> None:
    """Send a span for each request, predictions by the plain route included.

    Raises:
        TracingError: the extra ``tracing`` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingError(
            f"ML_TRACES_ENDPOINT={settings.traces_endpoint} needs the extra `tracing`: "
            "pip install '.[serve,tracing]'"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": settings.model_name}))
    exporter = OTLPSpanExporter(endpoint=settings.traces_endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    app.add_middleware(
        OpenTelemetryMiddleware, tracer_provider=provider, exclude_spans=["receive", "send"]
    )
