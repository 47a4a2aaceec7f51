"""The application and the process that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from ..settings import Settings
from .metrics import ServerMetrics
from .middleware import BodyLimitMiddleware, RequestIdMiddleware
from .online import UserFeatures
from .openapi import described
from .problems import add_problem_handlers
from .routes import router
from .store import ModelStore

DOCS_ASSETS = "/docs/assets"
SHUTDOWN_SECONDS = 20
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
}


class ServingApp(FastAPI):
    """FastAPI whose requests all have an id and whose document describes the loaded model."""

    def build_middleware_stack(self) -> ASGIApp:
        """Put the request's id around everything, error handlers and added middleware too."""
        return RequestIdMiddleware(super().build_middleware_stack(), self.state.metrics)

    def openapi(self) -> dict[str, Any]:
        """Describe the server as it is now."""
        most_rows = self.state.settings.max_batch_rows
        users = self.state.users.configured
        return described(super().openapi(), self.state.store.current, most_rows, users)


def create_app(settings: Settings) -> FastAPI:
    """Build the application; the model is loaded when it starts, and watched from then on."""
    app = ServingApp(
        title=settings.model_name,
        version="1",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.metrics = ServerMetrics()
    app.state.store = ModelStore(settings.served_dir, app.state.metrics)
    app.state.users = UserFeatures(settings)
    app.add_middleware(BodyLimitMiddleware, most_bytes=settings.max_body_bytes)
    add_problem_handlers(app)
    app.include_router(router)
    app.add_api_route("/docs", _docs, include_in_schema=False)
    app.mount(DOCS_ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]))
    return app


def serve(settings: Settings) -> None:
    """Run the server until it is told to stop; requests under way are finished first."""
    config = uvicorn.Config(
        partial(create_app, settings),
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=LOGGING,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    with suppress(KeyboardInterrupt):
        if settings.workers > 1:
            Multiprocess(config, sockets=[config.bind_socket()]).run()
        else:
            uvicorn.Server(config).run()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    store: ModelStore = app.state.store
    app.state.users.start()
    await asyncio.to_thread(store.refresh)
    watcher = asyncio.create_task(store.watch(app.state.settings.model_poll_seconds))
    try:
        yield
    finally:
        app.state.users.close()
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


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
