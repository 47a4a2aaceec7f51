"""One user's features as of now, for the server: from Feast in this process, or from its server.

Feast itself is imported by ``FeastInProcess`` alone; the server's image need not hold it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from .errors import ProjectError
from .settings import Settings

logger = logging.getLogger(__name__)

FEATURE_SERVICE = "model_inputs"

INSTANTS = TypeAdapter(datetime)

Values = dict[str, Any]
Found = Mapping[str, tuple[Any, datetime]]  # a value and when it was known, UTC without a zone


class StoreUnavailableError(ProjectError):
    """The feature store does not answer; it may later."""


class NoFeaturesError(ProjectError):
    """The feature store holds no fresh features of this user."""


class OnlineFeatures(Protocol):
    """Where users' features are read."""

    threads: int
    """How many may read at once."""

    def read(self, key: str, user_id: str) -> Found:
        """Every feature by name.

        Raises:
            StoreUnavailableError: the store does not answer.
        """


def usable(found: Found, ttl: timedelta, now: datetime) -> Values:
    """The values by name.

    Raises:
        NoFeaturesError: one is missing, or further than the ttl from now.
    """
    missing = [name for name, (value, _) in found.items() if value is None]
    if missing:
        what = "nothing" if len(missing) == len(found) else f"no {', '.join(missing)}"
        raise NoFeaturesError(f"the feature store holds {what} of this user")
    oldest = min((at for _, at in found.values() if abs(now - at) > ttl), default=None)
    if oldest is not None:
        raise NoFeaturesError(
            f"what the feature store holds of this user is of {oldest:%Y-%m-%d %H:%M}, not within "
            f"{ttl / timedelta(hours=1):g} hours of now ({now:%Y-%m-%d %H:%M}): features "
            "materialize renews it"
        )
    return {name: value for name, (value, _) in found.items()}


class FeastInProcess:
    """Feast as a library, which reads the online store itself. Making one takes seconds."""

    threads = 1  # an SQLite connection is one thread's

    def __init__(self, settings: Settings) -> None:
        from .data import KEY
        from .feature_store import open_store

        # A thread of Feast's keeps what is registered up to date, so that no request waits for it.
        self._store = open_store(settings, cache_mode="thread")
        self._registered: object = None
        self._service: Any = None
        # The first read opens the online store and takes longest, so it is nobody's request.
        try:
            self.read(KEY, "")
        except StoreUnavailableError as error:
            logger.warning("the online store was asked in vain: %s", error)

    def read(self, key: str, user_id: str) -> Found:
        """Read from the online store."""
        try:
            answer = self._store.get_online_features(self._current_service(), [{key: user_id}])
            values = answer.to_dict(include_event_timestamps=True)
        except Exception as error:  # each kind of store has errors of its own
            raise StoreUnavailableError(f"{type(error).__name__}: {error}") from error
        stamps = {
            name: values.pop(f"{name}__ts") for name in list(values) if f"{name}__ts" in values
        }
        return {
            name: (values[name][0], datetime.fromtimestamp(at, timezone.utc).replace(tzinfo=None))
            for name, [at] in stamps.items()
            if name != key
        }

    def _current_service(self) -> Any:
        """The service as last registered; reading it takes longer than reading a user."""
        registry = self._store.registry
        if (registered := registry.cached_registry_proto) is not self._registered:
            project = self._store.project
            self._service = registry.get_feature_service(FEATURE_SERVICE, project, allow_cache=True)
            self._registered = registered
        return self._service


class FeastServer:
    """Feast's own feature server, asked over HTTP; each thread keeps a connection."""

    threads = 8

    def __init__(self, address: str, seconds: float) -> None:
        self._url = urlsplit(address.rstrip("/"))
        self._seconds = seconds
        self._local = threading.local()

    def read(self, key: str, user_id: str) -> Found:
        """Ask the feature server."""
        body = json.dumps({"feature_service": FEATURE_SERVICE, "entities": {key: [user_id]}})
        try:
            status, content = self._post(body)
        except (OSError, HTTPException) as error:
            raise StoreUnavailableError(f"{self._url.netloc}: {error!r}") from error
        if status != 200:
            raise StoreUnavailableError(f"{self._url.netloc} answers {status}: {content[:200]!r}")
        answer = json.loads(content)
        return {
            name: (result["values"][0], _instant(result["event_timestamps"][0]))
            for name, result in zip(
                answer["metadata"]["feature_names"], answer["results"], strict=True
            )
            if name != key
        }

    def _post(self, body: str) -> tuple[int, bytes]:
        """Send on the thread's connection; a kept one may have been closed: then on a new one."""
        kept: HTTPConnection | None = getattr(self._local, "connection", None)
        if kept is not None:
            try:
                return self._exchange(kept, body)
            except (ConnectionError, HTTPException):
                kept.close()
        kind = HTTPSConnection if self._url.scheme == "https" else HTTPConnection
        self._local.connection = kind(self._url.netloc, timeout=self._seconds)
        return self._exchange(self._local.connection, body)

    def _exchange(self, connection: HTTPConnection, body: str) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        try:
            connection.request("POST", f"{self._url.path}/get-online-features", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except BaseException:
            connection.close()
            raise


def _instant(text: str) -> datetime:
    # Any number of digits of a second; Python 3.10's own parser takes three or six.
    return INSTANTS.validate_python(text).replace(tzinfo=None)
