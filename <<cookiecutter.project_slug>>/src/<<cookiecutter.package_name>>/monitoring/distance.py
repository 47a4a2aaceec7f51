"""How far two samples lie apart, and whether chance alone explains it.

The distance is the population stability index (PSI), the symmetrised Kullback-Leibler divergence
of two histograms: it is one scale for numbers and categories, needs nothing but counts (so parts
add up), and its limits are known (0.1: look, 0.25: act). Alone it says little on few rows, since
its expectation without any drift is about (1/m + 1/n)(cells - 1) (Yurdakul 2018); so the
chi-squared test of homogeneity must also rule out chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_EXPECTED = 5
RARE_SHARE = 0.0001

Counts = NDArray[np.int64]


def common_cells(reference: Sequence[int], current: Sequence[int]) -> tuple[Counts, Counts]:
    """Put cells together in which either sample would hold fewer than five rows.

    This depends on both samples' sum alone, so that it does not favour either verdict.
    """
    pair = np.array([reference, current], np.int64)
    sizes, cells = pair.sum(axis=1), pair.sum(axis=0)
    frequent = cells * (sizes.min() / max(sizes.sum(), 1)) >= LEAST_EXPECTED
    kept, rest = pair[:, frequent], pair[:, ~frequent].sum(axis=1, keepdims=True)
    joined = np.hstack([kept, rest]) if rest.any() else kept
    return joined[0], joined[1]


def stability_index(reference: Counts, current: Counts) -> float:
    """The PSI, empty cells filled as Evidently fills them, so that both give the same figure."""
    shares = [_filled(counts / counts.sum()) for counts in (reference, current)]
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def chance(reference: Counts, current: Counts) -> float:
    """How probable so large a difference is without drift (chi-squared test of homogeneity)."""
    from scipy.stats import chi2

    if reference.size < 2:
        return 1.0
    m, n = reference.sum(), current.sum()
    difference = (n * reference - m * current).astype(np.float64) ** 2
    statistic = (difference / (reference + current)).sum() / (float(m) * n)
    return float(chi2.sf(statistic, reference.size - 1))


def _filled(shares: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    least = shares[shares > 0].min()
    fill = least / 1e6 if least <= RARE_SHARE else RARE_SHARE
    return np.where(shares == 0, fill, shares)
