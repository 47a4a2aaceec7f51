"""Layers around the whole application: a request's id, and the size of its body."""

from __future__ import annotations

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import ServerMetrics

logger = logging.getLogger(__name__)

PREDICT_PATH = "/predict"
REQUEST_ID_HEADER = "X-Request-ID"
TOKEN = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIdMiddleware:
    """Names every request, and is the outermost layer: it logs what nothing else handled.

    A client's own X-Request-ID is kept where it is up to 64 letters, digits, ``.``, ``_``, ``-``.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
                self._count_error(scope, message["status"])
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            logger.exception("request %s: %s %r", request_id, scope["method"], scope["path"])
            if not answered:
                raise

    def _count_error(self, scope: Scope, status: int) -> None:
        if status >= 400 and scope["path"] == PREDICT_PATH:
            self.metrics.errors.labels(str(status)).inc()


class BodyLimitMiddleware:
    """Refuses a body that is too large while it is read, whether or not its length was announced.

    FastAPI's own limit answers in plain text where a route does not read the body.
    """

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self.app = app
        self.most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        refused = announced.isdecimal() and int(announced) > self.most_bytes
        read = 0

        async def receive_limited() -> Message:
            nonlocal read
            if refused:
                raise self._too_large()
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most_bytes:
                raise self._too_large()
            return message

        await self.app(scope, receive_limited, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body may hold {self.most_bytes} bytes at most")


def _request_id(headers: Headers) -> str:
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if TOKEN.fullmatch(given) else uuid.uuid4().hex
