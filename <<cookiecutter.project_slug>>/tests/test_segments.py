from __future__ import annotations

import numpy as np
import pandas as pd

from <<cookiecutter.package_name>>.holdout import Holdout
from <<cookiecutter.package_name>>.schema import Feature, Signature
from <<cookiecutter.package_name>>.segments import compare_segments

SIGNATURE = Signature(
    task="binary",
    label="y",
    features=(Feature(name="city", type="string"), Feature(name="x")),
    classes=(0, 1),
)
ROWS = 4_000


def rows(seed: int = 0) -> tuple[Holdout, np.ndarray]:
    """Outcomes drawn from known probabilities; each cluster has two rows."""
    random = np.random.default_rng(seed)
    x = random.random(ROWS)
    features = pd.DataFrame({"city": random.choice(["a", "b", "c", "d"], ROWS), "x": x})
    outcomes = (random.random(ROWS) < x).astype(int)
    return Holdout(features, outcomes, np.arange(ROWS) // 2, {}), np.column_stack([1 - x, x])


def test_harm_to_one_category_is_found_though_the_whole_hides_it() -> None:
    held, scores = rows()
    harmed = scores.copy()
    harmed[(held.features["city"] == "b").to_numpy()] = 0.5
    worst, *others = compare_segments(SIGNATURE, held, harmed, scores, 200)
    assert (worst.feature, worst.values) == ("city", "= 'b'")
    assert worst.harm_at_least > 0.02
    assert worst.loss > worst.other_loss
    assert all(other.harm_at_least <= 0.03 for other in others)


def test_harm_to_one_bin_of_a_number_is_found() -> None:
    held, scores = rows()
    harmed = scores.copy()
    harmed[(held.features["x"] < 0.25).to_numpy()] = 0.5
    worst, *_ = compare_segments(SIGNATURE, held, harmed, scores, 200)
    assert worst.feature == "x"
    assert worst.values.startswith("in (-inf, 0.2")


def test_equal_models_raise_no_alarm_however_many_segments_there_are() -> None:
    alarms = 0
    for seed in range(200):
        held, scores = rows(seed)
        random = np.random.default_rng(seed + 1_000)
        first, second = (np.clip(scores + random.normal(0, 0.1, (ROWS, 1)), 0, 1) for _ in "ab")
        alarms += compare_segments(SIGNATURE, held, first, second, 200)[0].harm_at_least > 0
    # Binomial(200, 0.025) stays at or below 12 in 99.7 % of all draws.
    assert alarms <= 12


def test_small_segments_are_left_out() -> None:
    held, scores = rows()
    assert compare_segments(SIGNATURE, held, scores, scores, ROWS) == []


def test_a_feature_of_one_value_is_one_segment() -> None:
    held, scores = rows()
    held.features["x"] = 1.0
    found = compare_segments(SIGNATURE, held, scores, scores, 200)
    assert [segment.values for segment in found if segment.feature == "x"] == ["in (-inf, 1]"]
    assert {segment.harm for segment in found} == {0.0}
