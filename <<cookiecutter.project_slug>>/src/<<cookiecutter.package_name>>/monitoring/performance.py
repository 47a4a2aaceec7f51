"""How good the model is by now, from the outcomes that came back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..bundle import Bundle, Interval
from ..evaluation import INTERVAL_LEVEL, Floats, Outcomes, primary_metric
from ..profiling import CONFIDENCE, PREDICTION
from ..schema import Signature
from ..settings import Settings

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

OUTCOME = "outcome"
USER = "user_id"


class Performance(BaseModel):
    """The primary metric on answered requests, against the hold-out's."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    metric: str
    reference: float
    current: Interval
    rows: int
    fallen: bool

    def __str__(self) -> str:
        now = self.current
        return (
            f"{self.metric} {now.estimate:.4f} [{now.low:.4f}, {now.high:.4f}] on {self.rows:,} "
            f"outcomes, {self.reference:.4f} on the hold-out"
        )


def measure_performance(
    settings: Settings, bundle: Bundle, rows: duckdb.DuckDBPyRelation
) -> Performance | None:
    """Measure on rows with an outcome; None where too few have one, or all the same.

    It has fallen when even the upper end of the interval lies below the hold-out's figure less
    the allowed regression. The interval draws whole users (a percentile bootstrap).
    """
    signature, metadata = bundle.signature, bundle.metadata
    outcomes, scores, clusters = _answered(settings, signature, rows)
    if len(outcomes) < settings.drift_minimum_rows or len(np.unique(outcomes)) < 2:
        return None
    random = np.random.default_rng(settings.seed)
    size = int(clusters.max()) + 1
    weights = random.multinomial(size, np.full(size, 1 / size), settings.bootstrap_resamples)
    draws = [primary_metric(signature, outcomes, scores, drawn[clusters]) for drawn in weights]
    tail = (1 - INTERVAL_LEVEL) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    reference = metadata.metrics[metadata.primary_metric]
    return Performance(
        metric=metadata.primary_metric,
        reference=reference,
        current=Interval(
            estimate=primary_metric(signature, outcomes, scores),
            low=float(low),
            high=float(high),
            level=INTERVAL_LEVEL,
        ),
        rows=len(outcomes),
        fallen=bool(high < reference - settings.allowed_regression),
    )


def _answered(
    settings: Settings, signature: Signature, rows: duckdb.DuckDBPyRelation
) -> tuple[Outcomes, Floats, Outcomes]:
    """Outcomes, scores as far as an answer tells them, and the number of each row's user."""
    needed = [PREDICTION, OUTCOME, *([CONFIDENCE] if signature.task == "binary" else [])]
    if not set(needed) <= set(rows.columns):
        return np.array([]), np.array([]), np.array([], np.int64)
    user = f"{USER}::VARCHAR" if USER in rows.columns else "NULL::VARCHAR"
    frame: pd.DataFrame = rows.query(
        "answered",
        # DuckDB draws a sample before it filters: only rows with an outcome may be drawn.
        f"SELECT * FROM (SELECT {', '.join(needed)}, {user} AS unit FROM answered "
        f"WHERE {OUTCOME} IS NOT NULL) "
        f"USING SAMPLE reservoir({settings.evaluation_rows} ROWS) REPEATABLE ({settings.seed})",
    ).df()
    if signature.task == "regression":
        outcomes = frame[OUTCOME].to_numpy(np.float64)
        scores = frame[PREDICTION].to_numpy(np.float64)
    else:
        places = {str(label): place for place, label in enumerate(signature.classes)}
        place = frame[[PREDICTION, OUTCOME]].apply(lambda c: c.astype(str).map(places))
        frame = frame[place.notna().all(axis=1)]
        said, came = place.dropna().astype(int).to_numpy().T.reshape(2, -1)
        outcomes = np.array(signature.classes)[came]
        scores = np.eye(len(signature.classes))[said]
        if signature.task == "binary":
            confidence = frame[CONFIDENCE].to_numpy(np.float64)[:, None]
            scores = np.where(scores == 1, confidence, 1 - confidence)
    unit = frame["unit"].where(
        frame["unit"].notna(), "row " + frame.index.astype(str).to_series(index=frame.index)
    )
    return outcomes, scores, np.unique(unit.to_numpy(str), return_inverse=True)[1]
