"""The application and the process that runs it."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.routing import iter_route_contexts
from fastapi.staticfiles import StaticFiles
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from ..errors import ProjectError
from ..settings import Settings
from .clock import Clock
from .fast_path import FastPath
from .feedback import feedback_router
from .logs import log_config
from .metrics import ServerMetrics
from .middleware import PREDICT_PATH, ApiKeys, BodyLimitMiddleware, GateMiddleware, Load
from .online import UserFeatures
from .openapi import described
from .problems import add_problem_handlers
from .recorder import FOLD_SECONDS, Recorder
from .routes import json_body, predict, router
from .store import ModelStore
from .tracing import trace
from .workers import PUBLISH_SECONDS, SharedMetrics

logger = logging.getLogger(__name__)

DOCS_ASSETS = "/docs/assets"
SHUTDOWN_SECONDS = 20


class ServingError(ProjectError):
    """The server could not start."""


class ServingApp(FastAPI):
    """FastAPI with a fast path for predictions, and gates around everything else.

    Whatever is added to the application, middleware, dependencies, another route, counts: then
    predictions take the plain route too.
    """

    fast_path: FastPath
    is_fast: bool | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] == PREDICT_PATH and scope["method"] == "POST":
            if self.is_fast is None:
                self.choose_path()
            if self.is_fast and not self.dependency_overrides:
                await self.fast_path(scope, receive, send)
                return
        await self.plain(scope, receive, send)

    async def plain(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as any FastAPI application does."""
        await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Put the gate around everything, error handlers and added middleware too."""
        state = self.state
        return GateMiddleware(
            super().build_middleware_stack(), state.metrics, state.keys, state.load
        )

    def choose_path(self) -> None:
        """Find out whether predictions may take the fast path, and log it."""
        reasons = self._reasons_for_the_plain_route()
        if reasons:
            logger.warning("predictions take the plain route: %s", "; ".join(reasons))
        else:
            logger.info("predictions take the fast path")
        self.is_fast = not reasons

    def _reasons_for_the_plain_route(self) -> list[str]:
        layers: list[object] = [layer.cls for layer in self.user_middleware]
        reasons = [
            f"{_name(layer)} was added" for layer in layers if layer is not BodyLimitMiddleware
        ]
        if "build_middleware_stack" in vars(self):
            reasons.append("the middleware was instrumented")
        scope = {"type": "http", "method": "POST", "path": PREDICT_PATH, "headers": []}
        taking = next(r for r in self.routes if r.matches(dict(scope))[0] is Match.FULL)
        contexts = [
            found
            for found in iter_route_contexts([taking])
            if found.path == PREDICT_PATH and "POST" in (found.methods or ())
        ]
        if not contexts or contexts[0].endpoint is not predict:
            return [*reasons, f"another route takes {PREDICT_PATH}"]
        own = {json_body}
        calls = [dependency.dependency for dependency in contexts[0].dependencies]
        reasons += [f"it depends on {_name(call)}" for call in calls if call not in own]
        return reasons

    def openapi(self) -> dict[str, Any]:
        """Describe the server as it is now."""
        current, most_rows = self.state.store.current, self.state.settings.max_batch_rows
        users = self.state.users.configured
        return described(super().openapi(), current and current.control, most_rows, users)


def create_app(settings: Settings, metrics_folder: Path | None = None) -> ServingApp:
    """Build the application; the model is loaded when it starts, and watched from then on.

    Workers of one server share a folder for their metrics.
    """
    app = ServingApp(
        title=settings.model_name,
        version="1",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    metrics = ServerMetrics()
    store = ModelStore(settings.served_dir, settings.experiment_path, metrics)
    keys = ApiKeys(settings.api_keys)
    load = Load(settings.max_in_flight, settings.max_in_flight_bytes, settings.max_body_bytes)
    clock = Clock(settings)
    recorder = Recorder(settings, metrics, clock)
    metrics.in_flight.set_function(lambda: load.requests)
    app.state.metrics, app.state.store = metrics, store
    shared = metrics_folder and SharedMetrics(metrics.registry, metrics_folder)
    app.state.shared_metrics = shared
    app.state.exposed = shared.as_registry() if shared else metrics.registry
    app.state.keys, app.state.load, app.state.recorder = keys, load, recorder
    app.state.clock = clock
    app.fast_path = FastPath(app.plain, settings, store, recorder, keys, load)
    app.state.users = UserFeatures(settings)
    app.add_middleware(BodyLimitMiddleware, most_bytes=settings.max_body_bytes)
    add_problem_handlers(app)
    app.include_router(router)
    app.include_router(
        feedback_router(
            lambda: store.current.control.metadata.signature if store.current else None,
            lambda: recorder.log,
            clock,
        )
    )
    app.add_api_route("/docs", _docs, include_in_schema=False)
    app.mount(DOCS_ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]))
    if settings.traces_endpoint:
        trace(app, settings)
    return app


def serve(settings: Settings) -> None:
    """Run the server until it is told to stop; requests under way are finished first."""
    with tempfile.TemporaryDirectory(prefix="serving-metrics-") as folder:
        _run(settings, Path(folder) if settings.workers > 1 else None)


def _run(settings: Settings, metrics_folder: Path | None) -> None:
    config = uvicorn.Config(
        partial(create_app, settings, metrics_folder),
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=log_config(settings.server_log),
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    try:
        if settings.workers > 1:
            Multiprocess(config, sockets=[config.bind_socket()]).run()
        else:
            uvicorn.Server(config).run()
    except KeyboardInterrupt:
        return
    except SystemExit as error:
        if error.code != STARTUP_FAILURE:  # it was told to end
            raise
        raise ServingError(
            "the server did not start, the line above says why: where the address is in use, end "
            f"what listens on {settings.host}:{settings.port}, or choose another port by --port"
        ) from error


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    store: ModelStore = app.state.store
    recorder: Recorder = app.state.recorder
    app.state.users.start()
    await asyncio.to_thread(store.refresh)
    if store.current is None:
        folder = app.state.settings.served_dir
        logger.warning("no model is loaded from %s: `registry sync` brings one", folder)
    recorder.open()
    seconds = app.state.settings.model_poll_seconds
    looks = (store.refresh, app.state.clock.refresh)
    work = [_repeat(look, seconds) for look in looks]
    work.append(_repeat(recorder.flush, FOLD_SECONDS, in_thread=False))
    if shared := app.state.shared_metrics:
        work.append(_repeat(shared.publish, PUBLISH_SECONDS))
    tasks = [asyncio.create_task(each) for each in work]
    if isinstance(app, ServingApp):
        app.choose_path()
    try:
        yield
    finally:
        app.state.users.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await recorder.close()


async def _repeat(work: Callable[[], None], seconds: float, in_thread: bool = True) -> None:
    """Do it every so often, until cancelled; what fails is tried again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            if in_thread:
                await asyncio.to_thread(work)
            else:
                work()
        except Exception:
            logger.exception("%s failed", _name(work))


def _name(call: object) -> str:
    return getattr(call, "__name__", type(call).__name__)


async def _docs(request: Request) -> HTMLResponse:
    """Show the OpenAPI document; the assets are this server's own, so it works offline."""
    root = request.scope.get("root_path", "").rstrip("/")
    return get_swagger_ui_html(
        openapi_url=f"{root}{request.app.openapi_url}",
        title=request.app.title,
        swagger_js_url=f"{root}{DOCS_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{DOCS_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{root}{DOCS_ASSETS}/favicon.png",
    )
