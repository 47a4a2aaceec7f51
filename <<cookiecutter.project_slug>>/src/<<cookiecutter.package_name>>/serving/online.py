"""A user's features from the feature store, read beside the event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec

from fastapi import HTTPException

from ..bundle import Metadata
from ..online_features import (
    FeastInProcess,
    FeastServer,
    NoFeaturesError,
    OnlineFeatures,
    StoreUnavailableError,
    Values,
    usable,
)
from ..settings import Settings
from .rows import InvalidRowsError, ValueProblem, pointer

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
LOADING = "the feature store is being loaded: try again, or send the user's features as well"
AWAY = "the feature store does not answer: try again, or send the user's features as well"


class UserFeatures:
    """Finds users' features; loads Feast, which takes seconds, while the server answers already.

    Nothing is loaded where there is no feature store: neither a feature server's address nor
    Feast with something applied.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._source: OnlineFeatures | None = None
        self._loading: Future[OnlineFeatures] | None = None
        self._reading: ThreadPoolExecutor | None = None
        self._retry_at = 0.0
        self._away = False

    @property
    def configured(self) -> bool:
        """Whether a user's features can be asked for at all."""
        settings = self._settings
        if settings.feature_server:
            return True
        applied = bool(settings.feature_store) or settings.feature_registry_file.exists()
        return applied and find_spec("feast") is not None

    def start(self) -> None:
        """Begin to load in a thread, unless that was tried a moment ago."""
        if self._loading is None and self.configured and time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._loading = ThreadPoolExecutor(1, "feature-store").submit(self._load)

    def close(self) -> None:
        """Stop reading; nothing waits for a store that hangs."""
        if self._reading is not None:
            self._reading.shutdown(wait=False, cancel_futures=True)

    async def row(self, user_id: str, metadata: Metadata) -> Values:
        """The user's values of the features that a model reads.

        Raises:
            HTTPException: 404 without fresh features of the user, 503 where the store is
                loading or away.
            InvalidRowsError: there is no feature store.
        """
        if not self.configured:
            detail = "this server holds no feature store: send the user's features as well"
            raise InvalidRowsError([ValueProblem(pointer=pointer("user_id"), detail=detail)])
        self.start()
        if self._source is None or self._reading is None:
            raise self._unavailable(LOADING)
        job = self._reading.submit(self._source.read, metadata.key, user_id)
        reading = asyncio.wrap_future(job)
        seconds = self._settings.feature_timeout_seconds
        done, _ = await asyncio.wait({reading}, timeout=seconds)
        error = reading.exception() if done else StoreUnavailableError(f"no answer in {seconds} s")
        if not done:
            reading.cancel()
        self._tell(error)
        if isinstance(error, StoreUnavailableError):
            raise self._unavailable(AWAY) from error
        try:
            values = usable(reading.result(), metadata.feature_ttl, self._settings.as_of)
        except NoFeaturesError as none:
            raise HTTPException(404, str(none)) from none
        names = metadata.signature.names
        if missing := [name for name in names if name not in values]:
            raise self._unavailable(f"the feature store does not hold {', '.join(missing)}")
        return {name: values[name] for name in names}

    def _load(self) -> OnlineFeatures:
        settings = self._settings
        try:
            source: OnlineFeatures = (
                FeastServer(settings.feature_server, settings.feature_timeout_seconds)
                if settings.feature_server
                else FeastInProcess(settings)
            )
        except Exception:
            logger.exception("the feature store cannot be loaded")
            self._loading = None
            raise
        self._reading = ThreadPoolExecutor(source.threads, "user-features")
        self._source = source
        logger.info("the feature store is loaded: %s", type(source).__name__)
        return source

    def _tell(self, error: BaseException | None) -> None:
        """Log once that the store went away, and once that it is back."""
        if error and not self._away:
            logger.error("the feature store does not answer: %s", error)
        elif self._away and not error:
            logger.warning("the feature store answers again")
        self._away = error is not None

    def _unavailable(self, detail: str) -> HTTPException:
        seconds = math.ceil(self._settings.feature_timeout_seconds)
        return HTTPException(503, detail, headers={"Retry-After": str(seconds)})
