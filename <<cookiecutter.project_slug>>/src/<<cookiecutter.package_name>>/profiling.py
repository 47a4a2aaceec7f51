"""How the rows that a model was judged on are distributed.

It is the reference of the server's metrics and of drift: the hold-out, the newest rows, which
the model has not seen, so that its answers to them are those that it will give.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .bundle import NumberProfile, Profile, StringProfile
from .schema import ANSWER_FIELDS, Signature

QUANTILE_BINS = 20
KEPT_CATEGORIES = 50
PREDICTION, CONFIDENCE = ANSWER_FIELDS


def profile(
    signature: Signature, rows: pd.DataFrame, scores: NDArray[np.floating[Any]] | None = None
) -> Profile:
    """Histograms of numbers over their quantiles, counts of the commonest categories.

    Args:
        signature: the model's features and classes.
        rows: the features, also with missing values.
        scores: what the model says of them, as Scorer.scores gives it.
    """
    numbers = {name: number_profile(rows[name]) for name in signature.number_names}
    strings = {name: string_profile(rows[name]) for name in signature.string_names}
    if scores is not None:
        said = answers(signature, scores)
        if signature.task == "regression":
            numbers[PREDICTION] = number_profile(said[PREDICTION], between=True)
        else:
            strings[PREDICTION] = string_profile(said[PREDICTION])
            numbers[CONFIDENCE] = number_profile(said[CONFIDENCE], between=True)
    return Profile(rows=len(rows), numbers=numbers, strings=strings)


def answers(signature: Signature, scores: NDArray[np.floating[Any]]) -> pd.DataFrame:
    """Turn scores into the answers' columns, as the prediction log holds them."""
    if signature.task == "regression":
        return pd.DataFrame({PREDICTION: scores})
    labels = np.array(signature.classes, object)[scores.argmax(axis=1)]
    return pd.DataFrame({PREDICTION: labels, CONFIDENCE: scores.max(axis=1)})


def number_profile(values: pd.Series[Any], between: bool = False) -> NumberProfile:
    """Count values over their quantiles.

    Args:
        values: numbers; what is not finite counts as missing.
        between: whether edges lie between values, so that a rounding moves none across.
    """
    numbers = values.to_numpy(np.float32).astype(np.float64)
    finite = np.sort(numbers[np.isfinite(numbers)])
    if not finite.size:
        return NumberProfile(edges=(), counts=(0,), missing=numbers.size)
    inner = np.linspace(0, 1, QUANTILE_BINS + 1)[1:-1]
    edges = np.unique(np.quantile(finite, inner, method="lower"))
    if between:
        above = np.searchsorted(finite, edges, side="right")
        edges = edges[above < finite.size]
        edges = (edges + finite[above[above < finite.size]]) / 2
    bins = np.searchsorted(edges, finite, side="left")
    return NumberProfile(
        edges=tuple(edges.tolist()),
        counts=tuple(np.bincount(bins, minlength=edges.size + 1).tolist()),
        least=float(finite[0]),
        most=float(finite[-1]),
        missing=numbers.size - finite.size,
    )


def string_profile(values: pd.Series[Any]) -> StringProfile:
    """Count the commonest categories, and all others together."""
    counts = values.value_counts()
    kept = counts.head(KEPT_CATEGORIES)
    return StringProfile(
        counts={str(name): int(rows) for name, rows in kept.items()},
        other=int(counts.sum() - kept.sum()),
        missing=int(values.isna().sum()),
    )
