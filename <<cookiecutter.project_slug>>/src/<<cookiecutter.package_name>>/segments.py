"""Where a model does worse than another: each category and each quantile bin judged apart.

A model that is better on the whole may be worse for some. A segment's rows are held against each
other by a proper loss, row by row; harm counts where it is larger than allowed even at the lower
end of an interval that is widened for the number of segments looked at (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from .evaluation import Floats, row_losses
from .holdout import Holdout
from .schema import Signature
from .verdict import Segment

BINS = 4
MOST_CATEGORIES = 20
FALSE_ALARMS = 0.025
LEAST_CLUSTERS = 2


def compare_segments(
    signature: Signature, rows: Holdout, candidate: Floats, other: Floats, least_rows: int
) -> list[Segment]:
    """Compare two models on every segment with enough rows, the worst for the candidate first.

    Args:
        signature: says the task and which features are categories.
        rows: what both models answered.
        candidate: scores of the model in question.
        other: scores of the model it is held against.
        least_rows: smaller segments are left out.
    """
    masks = [
        (feature, values, mask)
        for feature, values, mask in _segments(signature, rows.features)
        if mask.sum() >= least_rows and np.unique(rows.clusters[mask]).size >= LEAST_CLUSTERS
    ]
    losses = row_losses(signature, rows.outcomes, candidate)
    others = row_losses(signature, rows.outcomes, other)
    found = []
    for feature, values, mask in masks:
        harm, error, degrees = _clustered_mean(losses[mask] - others[mask], rows.clusters[mask])
        widest = float(stats.t.ppf(1 - FALSE_ALARMS / len(masks), degrees))
        found.append(
            Segment(
                feature=feature,
                values=values,
                rows=int(mask.sum()),
                loss=float(losses[mask].mean()),
                other_loss=float(others[mask].mean()),
                harm=harm,
                harm_at_least=harm - widest * error,
            )
        )
    return sorted(found, key=lambda segment: segment.harm_at_least, reverse=True)


def _segments(
    signature: Signature, features: pd.DataFrame
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    for name in signature.string_names:
        for category in features[name].value_counts().index[:MOST_CATEGORIES]:
            yield name, f"= {category!r}", (features[name] == category).to_numpy()
    for name in signature.number_names:
        numbers = features[name].to_numpy(np.float64)
        inner = np.linspace(0, 1, BINS + 1)[1:-1]
        edges = [-np.inf, *np.unique(np.quantile(numbers, inner, method="lower")), np.inf]
        for low, high in pairwise(edges):
            yield name, f"in ({low:g}, {high:g}]", (numbers > low) & (numbers <= high)


def _clustered_mean(values: Floats, clusters: NDArray[np.integer[Any]]) -> tuple[float, float, int]:
    """A mean, its standard error and degrees of freedom; rows of a cluster go together."""
    mean = float(values.mean())
    _, position = np.unique(clusters, return_inverse=True)
    sums = np.bincount(position, weights=values - mean)
    error = np.sqrt((sums**2).sum() * sums.size / (sums.size - 1)) / values.size
    return mean, float(error), sums.size - 1
