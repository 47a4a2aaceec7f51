"""Current rows with a drift that was put there, for trying the job out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from ..errors import ProjectError

Shift = Literal["none", "mean", "scale", "category", "missing", "constant"]


class ShiftError(ProjectError):
    """The shift cannot be applied to these columns."""


def shifted(
    sample: pd.DataFrame, shift: Shift, size: float, columns: Sequence[str], rows: int, seed: int
) -> pd.DataFrame:
    """Draw rows of the reference and shift some of their columns.

    Args:
        sample: the reference's rows.
        shift: ``mean`` adds ``size`` standard deviations, ``scale`` stretches around the mean by
            ``size``, ``category`` turns the share ``size`` of texts into a new one, ``missing``
            removes the share ``size``, ``constant`` sets the first value everywhere.
        size: see above.
        columns: what to shift; default: every column that the shift suits.
        rows: how many to draw.
        seed: makes it repeatable.

    Raises:
        ShiftError: a column is not there, or the shift does not suit it.
    """
    random = np.random.default_rng(seed)
    drawn = sample.iloc[random.integers(0, len(sample), rows)].reset_index(drop=True)
    numbers = [n for n in drawn.columns if pd.api.types.is_numeric_dtype(drawn[n])]
    texts = [name for name in drawn.columns if name not in numbers]
    suits = {"mean": numbers, "scale": numbers, "category": texts}.get(shift, list(drawn.columns))
    if wrong := [name for name in columns if name not in suits]:
        raise ShiftError(f"{shift} does not suit {', '.join(wrong)}: it suits {', '.join(suits)}")
    for name in (columns or suits) if shift != "none" else ():
        values = drawn[name]
        struck = random.random(rows) < size
        if shift in ("mean", "scale"):
            spread = values - values.mean()
            moved = values + (size * values.std() if shift == "mean" else (size - 1) * spread)
            drawn[name] = moved.round() if (values % 1 == 0).all() else moved
        elif shift == "category":
            drawn[name] = values.where(~struck, "a new category")
        elif shift == "missing":
            drawn[name] = values.where(~struck)
        else:
            drawn[name] = values.iloc[0]
    return drawn
