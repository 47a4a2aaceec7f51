"""What is kept of the answered rows: metrics, the prediction log, and the shadow's own answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

import numpy as np
from numpy.typing import NDArray

from ..prediction_log import LoggedRows, SegmentWriter
from ..schema import Blocks
from ..settings import Settings
from .clock import Clock
from .metrics import LogCollector, ServerMetrics
from .router import Route
from .store import Lineup, ServedModel, finite_rows

logger = logging.getLogger(__name__)

FOLD_SECONDS = 0.1
MOST_SHADOW_BLOCKS = 64


class Recorder:
    """Takes answered rows, on the event loop, and hands them on.

    Whoever gathers rows before handing them over adds its own ``flush`` to ``sources``: it is
    called every FOLD_SECONDS, at a scrape and at the end.
    """

    def __init__(self, settings: Settings, metrics: ServerMetrics, clock: Clock) -> None:
        self.sources: list[Callable[[], None]] = []
        self._settings = settings
        self._metrics = metrics
        self._log: SegmentWriter | None = None
        self._clock = clock
        self._shadow = ThreadPoolExecutor(1, "shadow")
        self._shadow_room = Semaphore(MOST_SHADOW_BLOCKS)
        self._described: dict[str, ServedModel] = {}

    @property
    def log(self) -> SegmentWriter | None:
        """The prediction log, while the server runs and where it is on."""
        return self._log

    def open(self) -> None:
        """Begin to log."""
        settings = self._settings
        if settings.log_predictions:
            self._log = SegmentWriter(settings.prediction_log_dir, settings.log_segment_seconds)
            self._metrics.registry.register(LogCollector(self._log))

    async def close(self) -> None:
        """Hand on what is left, and wait until it is written."""
        self.flush()
        await asyncio.to_thread(self._shadow.shutdown)
        if self._log:
            await asyncio.to_thread(self._log.close)

    def flush(self) -> None:
        """Take what is gathered."""
        for source in self.sources:
            source()

    def record(
        self,
        lineup: Lineup,
        route: Route,
        request_ids: Sequence[str],
        user_ids: Sequence[str | None],
        began: NDArray[np.float64],
        seconds: NDArray[np.float32],
        blocks: Blocks,
        scores: NDArray[np.float32],
        requests: int,
    ) -> None:
        """Keep rows of one variant; ``began`` is by ``time.perf_counter``."""
        clock = self._clock.now() - time.perf_counter()
        model = lineup.models[route.index]
        rows = LoggedRows(
            model_version=model.version,
            variant=route.variant,
            experiment=route.experiment,
            shadow=False,
            request_ids=request_ids,
            user_ids=user_ids,
            at=began + clock,
            latency_seconds=seconds,
            blocks=blocks,
            scores=scores,
        )
        self._metrics.count(rows, model.profile, requests)
        if self._log:
            self._write(self._log, rows, model)
            if lineup.shadow and self._shadow_room.acquire(blocking=False):
                self._shadow.submit(self._score_shadow, lineup, lineup.shadow, rows, self._log)

    def record_batch(
        self,
        lineup: Lineup,
        route: Route,
        request_id: str,
        began: float,
        blocks: Blocks,
        scores: NDArray[np.float32],
        user_id: str | None = None,
        batch: bool = True,
    ) -> None:
        """Keep the rows of one request, which has just been answered.

        The rows of a batch are logged as ID/0, ID/1, and so on, even if it is only one.
        """
        rows = len(scores)
        self.record(
            lineup,
            route,
            [f"{request_id}/{row}" for row in range(rows)] if batch else [request_id],
            [user_id] * rows,
            np.full(rows, began),
            np.full(rows, time.perf_counter() - began, np.float32),
            blocks,
            scores,
            requests=1,
        )

    def _write(self, log: SegmentWriter, rows: LoggedRows, model: ServedModel) -> None:
        if self._described.get(model.version) is not model:
            log.describe(model.version, model.metadata.signature)
            self._described[model.version] = model
        log.append(rows)

    def _score_shadow(
        self, lineup: Lineup, shadow: ServedModel, rows: LoggedRows, log: SegmentWriter
    ) -> None:
        try:
            began = time.perf_counter()
            scores = shadow.scorer.scores(rows.blocks)
            kept = np.flatnonzero(finite_rows(scores)).tolist()
            each = (time.perf_counter() - began) / len(rows)
            scored = LoggedRows(
                model_version=shadow.version,
                variant=lineup.variants[-1][0],
                experiment=lineup.experiment.name if lineup.experiment else "",
                shadow=True,
                request_ids=[rows.request_ids[row] for row in kept],
                user_ids=[rows.user_ids[row] for row in kept],
                at=rows.at[kept],
                latency_seconds=np.full(len(kept), each, np.float32),
                blocks={name: block[kept] for name, block in rows.blocks.items()},
                scores=scores[kept],
            )
            self._write(log, scored, shadow)
        except Exception:
            logger.exception("the shadow, version %s, failed", shadow.version)
        finally:
            self._shadow_room.release()
