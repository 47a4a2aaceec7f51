from __future__ import annotations

import numpy as np
import pytest

from <<cookiecutter.package_name>>.monitoring.shifts import ShiftError, shifted

from .conftest import Drifting

FEATURES = ["amount", "visits", "city", "tier"]


def test_each_shift_does_what_it_says(drifting: Drifting) -> None:
    sample = drifting.rows[FEATURES]
    plain = shifted(sample, "none", 1, [], 5_000, seed=1)
    assert plain.merge(sample.drop_duplicates()).shape == plain.shape
    moved = shifted(sample, "mean", 0.5, ["amount"], 5_000, seed=1)
    gain = (moved["amount"].mean() - plain["amount"].mean()) / plain["amount"].std()
    assert gain == pytest.approx(0.5)
    assert moved.drop(columns="amount").equals(plain.drop(columns="amount"))
    wide = shifted(sample, "scale", 2, ["amount"], 5_000, seed=1)
    assert wide["amount"].std() == pytest.approx(2 * plain["amount"].std(), rel=1e-3)
    assert (shifted(sample, "mean", 0.3, ["visits"], 500, seed=1)["visits"] % 1 == 0).all()
    new = shifted(sample, "category", 0.2, [], 5_000, seed=1)
    for name in ("city", "tier"):
        assert (new[name] == "a new category").mean() == pytest.approx(0.2, abs=0.02)
    gaps = shifted(sample, "missing", 0.2, ["city"], 5_000, seed=1)
    assert gaps["city"].isna().mean() == pytest.approx(0.2, abs=0.02)
    assert np.unique(shifted(sample, "constant", 0, ["amount"], 50, seed=1)["amount"]).size == 1


def test_a_shift_that_does_not_suit_names_what_it_suits(drifting: Drifting) -> None:
    with pytest.raises(ShiftError, match="mean does not suit city: it suits amount, visits"):
        shifted(drifting.rows[FEATURES], "mean", 1, ["city"], 10, seed=1)
