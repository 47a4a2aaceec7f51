"""How the training data is distributed: the reference of the server's metrics and of drift."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .bundle import NumberProfile, Profile, StringProfile
from .schema import Signature

QUANTILE_BINS = 20
KEPT_CATEGORIES = 50


def profile(signature: Signature, rows: pd.DataFrame) -> Profile:
    """Histograms of numbers over their quantiles, counts of the commonest categories."""
    return Profile(
        rows=len(rows),
        numbers={name: _number_profile(rows[name]) for name in signature.number_names},
        strings={name: _string_profile(rows[name]) for name in signature.string_names},
    )


def _number_profile(values: pd.Series[float]) -> NumberProfile:
    numbers = values.to_numpy(np.float64)
    inner = np.linspace(0, 1, QUANTILE_BINS + 1)[1:-1]
    edges = np.unique(np.quantile(numbers, inner, method="lower"))
    bins = np.searchsorted(edges, numbers, side="left")
    counts = np.bincount(bins, minlength=edges.size + 1)
    return NumberProfile(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()))


def _string_profile(values: pd.Series[str]) -> StringProfile:
    counts = values.value_counts()
    kept = counts.head(KEPT_CATEGORIES)
    return StringProfile(
        counts={str(name): int(rows) for name, rows in kept.items()},
        other=int(counts.sum() - kept.sum()),
    )
