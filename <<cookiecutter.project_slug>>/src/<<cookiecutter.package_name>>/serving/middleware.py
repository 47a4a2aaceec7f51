"""The layers around the whole application: ids, keys and limits of every request."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from collections.abc import Iterator, Mapping

from fastapi import Request
from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import ServerMetrics
from .problems import problem

logger = logging.getLogger(__name__)

PREDICT_PATH = "/predict"
OPEN_PATHS = frozenset({"/live", "/ready"})
REQUEST_ID_HEADER = "X-Request-ID"
KEY_HEADER = "X-API-Key"
TOKEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
BUSY_RETRY_SECONDS = "1"
SECURITY_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)

RawHeaders = Mapping[bytes, bytes]


def _new_ids() -> Iterator[str]:
    """Random ids of 32 hexadecimal digits, cut from larger draws."""
    while True:
        digits = secrets.token_hex(4096)
        yield from (digits[start : start + 32] for start in range(0, len(digits), 32))


_ids = _new_ids()


def request_id_of(headers: RawHeaders) -> str:
    """The client's own id where it is up to 64 letters, digits, ``.``, ``_``, ``-``, else a new."""
    given = headers.get(b"x-request-id")
    if given is not None and TOKEN.fullmatch(text := given.decode("latin-1")):
        return text
    return next(_ids)


class ApiKeys:
    """The keys that clients may show; without any, everybody may ask."""

    def __init__(self, keys: SecretStr) -> None:
        values = keys.get_secret_value().split(",")
        self._keys = [key.strip().encode() for key in values if key.strip()]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def admit(self, headers: RawHeaders) -> bool:
        """Whether the request may pass; compares with every key in constant time."""
        if not self._keys:
            return True
        shown = headers.get(b"x-api-key", b"")
        if not shown:
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            shown = token.strip() if scheme.lower() == b"bearer" else b""
        matches = 0
        for key in self._keys:
            matches += hmac.compare_digest(key, shown)
        return matches > 0


class Load:
    """Requests under way and the bytes of their bodies, both bounded."""

    def __init__(self, most_requests: int, most_bytes: int, largest_body: int) -> None:
        self.requests = 0
        self._bytes = 0
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self._largest_body = largest_body

    def take(self, headers: RawHeaders) -> int | None:
        """Let a request in: the bytes to give back at its end, or None where there is no room."""
        announced = headers.get(b"content-length")
        size = self._largest_body
        if announced is None:
            size = size if b"transfer-encoding" in headers else 0
        elif len(announced) < 10 and announced.isdigit():
            size = min(size, int(announced))
        if self.requests >= self._most_requests or self._bytes + size > self._most_bytes:
            return None
        self.requests += 1
        self._bytes += size
        return size

    def give_back(self, size: int) -> None:
        """End a request."""
        self.requests -= 1
        self._bytes -= size


class GateMiddleware:
    """The outermost layer: names requests, asks for keys, refuses what is too much.

    It also logs what nothing else handled and puts the security headers on every answer.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics, keys: ApiKeys, load: Load) -> None:
        self._app = app
        self._metrics = metrics
        self._keys = keys
        self._load = load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(reversed(scope["headers"]))
        request_id = request_id_of(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        answered = False

        async def send_named(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                answer_headers = MutableHeaders(scope=message)
                answer_headers[REQUEST_ID_HEADER] = request_id
                answer_headers.raw.extend(SECURITY_HEADERS)
                self._count_error(scope, message["status"])
            await send(message)

        try:
            await self._admit(headers, scope, receive, send_named)
        except Exception:
            logger.exception(
                "request %s: %s %r",
                request_id,
                scope["method"],
                scope["path"],
                extra={"request_id": request_id},
            )
            if not answered:
                raise

    async def _admit(self, headers: RawHeaders, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if not self._keys.admit(headers):
            detail = f"send a valid key as {KEY_HEADER} or as Authorization: Bearer"
            refusal = problem(Request(scope), 401, detail, headers={"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        size = self._load.take(headers)
        if size is None:
            detail = "too many requests are under way: try again later"
            retry = {"Retry-After": BUSY_RETRY_SECONDS}
            await problem(Request(scope), 503, detail, headers=retry)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._load.give_back(size)

    def _count_error(self, scope: Scope, status: int) -> None:
        if status >= 400 and scope["path"] == PREDICT_PATH:
            self._metrics.errors.labels(str(status)).inc()


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
