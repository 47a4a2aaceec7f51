"""The model in production, reloaded whenever the served folder names another one."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import CHECKSUM_FILE, CONTENT_FILES, BundleError, Metadata, Profile, Scorer
from ..schema import Blocks
from ..served_models import PRODUCTION, read_aliases, served_bundle, version_folder
from .metrics import ServerMetrics
from .rows import InvalidRowsError, RowReader, Rows, ValueProblem

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30.0

Answer = tuple[Any, float | None]
State = tuple[str, tuple[object, ...]]


@dataclass(frozen=True)
class ServedModel:
    """A model that answers requests. Safe to share by threads."""

    version: str
    metadata: Metadata
    profile: Profile
    scorer: Scorer
    reader: RowReader

    def answer(self, rows: Rows) -> tuple[Blocks, list[Answer]]:
        """Check and score the rows of a request.

        Returns:
            The model's input and, for each row, (class, its probability) or (value, None).

        Raises:
            InvalidRowsError: a value is not valid, or the model's answer to a row is not finite.
        """
        blocks = self.reader.read(rows)
        scores = self.scorer.scores(blocks)
        finite = np.isfinite(scores.reshape(len(rows), -1)).all(axis=1)
        if not finite.all():
            where = rows[int(finite.argmin())][0]
            detail = f"the model has no finite answer to {where}: its values are too extreme"
            raise InvalidRowsError([ValueProblem(pointer=where, detail=detail)])
        return blocks, self.scorer.answers(scores)

    @property
    def example(self) -> dict[str, Any]:
        """A typical row by name: medians, and the commonest categories."""
        values: dict[str, Any] = {}
        for feature in self.metadata.signature.features:
            if feature.type == "string":
                strings = self.profile.strings.get(feature.name)
                counts = strings.counts if strings else {}
                values[feature.name] = max(counts, key=counts.__getitem__, default="")
            else:
                numbers = self.profile.numbers.get(feature.name)
                edges = numbers.edges if numbers else ()
                median = edges[len(edges) // 2] if edges else 0.0
                values[feature.name] = round(median) if feature.type == "int" else median
        return values


def load_model(served: Path, version: str) -> ServedModel:
    """Read, verify and try a version.

    Raises:
        BundleError: it is missing, altered, or does not answer as its signature says.
    """
    bundle = served_bundle(served, version)
    signature = bundle.signature
    model = ServedModel(
        version, bundle.metadata, bundle.profile, bundle.scorer(), RowReader(signature)
    )
    scores = model.scorer.scores(model.reader.read([("#", model.example)]))
    expected = (1, len(signature.classes)) if signature.classes else (1,)
    if scores.shape != expected:
        raise BundleError(
            f"version {version} answers with the shape {scores.shape}, its signature means "
            f"{expected}: export it again"
        )
    return model


class ModelStore:
    """Holds the production model of a served folder, if there is one.

    Whatever cannot be loaded is refused: logged and counted once for each state of the folder, and
    the model before it keeps serving. A refused state is tried again after RETRY_SECONDS.
    """

    def __init__(self, served: Path, metrics: ServerMetrics) -> None:
        self.current: ServedModel | None = None
        self._served = served
        self._metrics = metrics
        self._loaded: State | None = None
        self._refused: tuple[State | None, str] | None = None
        self._retry_at = 0.0

    async def watch(self, seconds: float) -> None:
        """Look at the folder every so often, in a thread, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Load the production model if it is another one than the current."""
        state = None
        try:
            state = self._look()
            if state is None or state == self._loaded:
                self._refused = None
            elif not self._waits(state):
                self._swap(state, load_model(self._served, state[0]))
        except Exception as error:
            self._refuse(state, error)

    def _look(self) -> State | None:
        version = read_aliases(self._served).get(PRODUCTION)
        if version is None:
            if self.current:
                raise BundleError(f"{self._served} names no {PRODUCTION} version any more")
            return None
        folder = version_folder(self._served, version)
        files = (folder / name for name in (*CONTENT_FILES, CHECKSUM_FILE))
        return version, tuple(_identity(path) for path in files)

    def _waits(self, state: State) -> bool:
        refused = self._refused and self._refused[0]
        return refused == state and time.monotonic() < self._retry_at

    def _swap(self, state: State, model: ServedModel) -> None:
        self._metrics.serve(model.version, model.metadata, model.profile)
        self.current, self._loaded, self._refused = model, state, None
        self._metrics.reloads.labels("loaded").inc()
        logger.info("version %s of %s is loaded", model.version, model.metadata.model_name)

    def _refuse(self, state: State | None, error: Exception) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        refused = (state, str(error))
        if refused == self._refused:
            return
        self._refused = refused
        self._metrics.reloads.labels("refused").inc()
        serving = f"version {self.current.version} keeps serving" if self.current else "no model"
        logger.error(
            "refused (%s): %s",
            serving,
            error,
            exc_info=None if isinstance(error, BundleError) else error,
        )


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; None without the file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
