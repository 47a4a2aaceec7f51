from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from <<cookiecutter.package_name>>.evaluation import (
    EvaluationError,
    measure,
    onnx_difference,
    paired_gain,
)
from <<cookiecutter.package_name>>.schema import Feature, Signature

FEATURES = (Feature(name="x"),)
BINARY = Signature(task="binary", label="y", features=FEATURES, classes=("no", "yes"))
MULTICLASS = Signature(task="multiclass", label="y", features=FEATURES, classes=(1, 2, 3))
REGRESSION = Signature(task="regression", label="y", features=FEATURES)


def probabilities(positive: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - positive, positive])


def drawn(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes drawn from known probabilities."""
    random = np.random.default_rng(seed)
    positive = random.random(rows)
    return np.where(random.random(rows) < positive, "yes", "no"), positive


def test_binary_metrics() -> None:
    outcomes, positive = drawn(20_000)
    metrics = measure(BINARY, outcomes, probabilities(positive))
    assert metrics["roc_auc"] == roc_auc_score(outcomes == "yes", positive)
    assert metrics["log_loss"] == pytest.approx(log_loss(outcomes == "yes", positive))
    assert metrics["accuracy"] == np.mean((positive > 0.5) == (outcomes == "yes"))
    assert metrics["calibration_error"] < 0.02
    assert set(metrics) == {
        "accuracy", "f1", "roc_auc", "pr_auc", "log_loss", "brier", "calibration_error",
    }  # fmt: skip


def test_votes_that_add_up_to_a_little_over_one_are_measured() -> None:
    outcomes, positive = drawn(100)
    votes = positive.astype(np.float32)
    votes[0] = np.full(20, 1 / 20, np.float32).cumsum()[-1]
    assert votes[0] > 1
    assert measure(BINARY, outcomes, probabilities(votes))["brier"] > 0


def test_calibration_error_is_the_distance_of_the_frequencies() -> None:
    outcomes, positive = drawn(20_000)
    overconfident = np.clip(positive + 0.2, 0, 1)
    error = measure(BINARY, outcomes, probabilities(overconfident))["calibration_error"]
    assert error == pytest.approx(0.2 * 0.9, abs=0.02)


def test_multiclass_metrics() -> None:
    outcomes = np.array([1, 2, 3, 3])
    sure = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
    metrics = measure(MULTICLASS, outcomes, sure)
    assert metrics["accuracy"] == 0.75
    assert metrics["f1"] == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
    assert metrics["log_loss"] == pytest.approx(-(3 * np.log(0.8) + np.log(0.1)) / 4)


def test_regression_metrics() -> None:
    metrics = measure(REGRESSION, np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0]))
    assert metrics == pytest.approx(
        {"r2": -1.0, "rmse": (4 / 3) ** 0.5, "mae": 2 / 3, "mean_error": 2 / 3}
    )


def test_a_class_that_never_occurs_is_named() -> None:
    with pytest.raises(EvaluationError, match=r"no row of the 3 .* has the label \['yes'\]"):
        measure(BINARY, np.array(["no"] * 3), probabilities(np.full(3, 0.1)))


def test_a_model_gains_nothing_over_itself() -> None:
    outcomes, positive = drawn(500)
    scores = probabilities(positive)
    gain = paired_gain(BINARY, outcomes, scores, scores, np.arange(500), 40, seed=1)
    assert (gain.low, gain.estimate, gain.high) == (0, 0, 0)


def test_the_interval_covers_a_real_gain_and_repeats() -> None:
    outcomes, positive = drawn(2_000)
    noisy = np.random.default_rng(5).random(2_000)
    arguments = (BINARY, outcomes, probabilities(positive), probabilities(noisy))
    gain = paired_gain(*arguments, np.arange(2_000), 100, seed=1)
    assert 0.2 < gain.low < gain.estimate < gain.high < 0.5
    assert gain == paired_gain(*arguments, np.arange(2_000), 100, seed=1)
    assert gain != paired_gain(*arguments, np.arange(2_000), 100, seed=2)


def test_rows_of_one_customer_count_as_one() -> None:
    outcomes, positive = drawn(300)
    noisy = np.clip(positive + np.random.default_rng(5).normal(0, 0.3, 300), 0, 1)
    copies = 20
    repeated = (
        BINARY,
        np.repeat(outcomes, copies),
        probabilities(np.repeat(positive, copies)),
        probabilities(np.repeat(noisy, copies)),
    )
    by_row = paired_gain(*repeated, np.arange(300 * copies), 100, seed=1)
    by_customer = paired_gain(*repeated, np.repeat(np.arange(300), copies), 100, seed=1)
    assert by_customer.high - by_customer.low > 3 * (by_row.high - by_row.low)


def test_too_few_of_a_class_for_an_interval_say_so() -> None:
    outcomes = np.array(["yes"] + ["no"] * 9)
    scores = probabilities(np.linspace(0.1, 0.9, 10))
    with pytest.raises(EvaluationError, match="ML_HOLDOUT_TIMES"):
        paired_gain(BINARY, outcomes, scores, scores, np.arange(10), 100, seed=1)


def test_the_onnx_difference_is_in_units_of_the_task() -> None:
    half, other = np.array([[0.5, 0.5]]), np.array([[0.4, 0.6]])
    assert onnx_difference(BINARY, half, other) == pytest.approx(0.1)
    own = np.array([0.0, 20.0])
    assert onnx_difference(REGRESSION, own + 1, own) == pytest.approx(0.1)
