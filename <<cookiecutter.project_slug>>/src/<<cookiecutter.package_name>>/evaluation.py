"""How good a model is: the metrics of each task, and whether one model beats another."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from .bundle import Interval
from .console import track
from .errors import ProjectError
from .schema import Signature, Task

PRIMARY_METRIC: dict[Task, str] = {
    "binary": "roc_auc",
    "multiclass": "accuracy",
    "regression": "r2",
}
CALIBRATION_BINS = 10
INTERVAL_LEVEL = 0.95
LOWER_IS_BETTER = {"log_loss", "brier", "calibration_error", "rmse", "mae"}
CALIBRATION_DRAWS = 100
MOST_DRAWN_ROWS = 10_000
LARGEST_ONNX_DIFFERENCE = 1e-4
LEAST_USABLE_RESAMPLES = 0.9

Floats = NDArray[np.floating[Any]]
Outcomes = NDArray[Any]


class EvaluationError(ProjectError):
    """The rows to evaluate on do not suffice."""


def measure(signature: Signature, outcomes: Outcomes, scores: Floats) -> dict[str, float]:
    """Every metric of the task.

    Args:
        signature: says the task and its classes.
        outcomes: (n,) true labels or values.
        scores: (n, classes) probabilities, or (n,) values in a regression.

    Raises:
        EvaluationError: a class that the metrics need never occurs.
    """
    if signature.task == "regression":
        return _measure_regression(outcomes, scores)
    _require_classes(signature, outcomes)
    if signature.task == "binary":
        return _measure_binary(signature, outcomes, scores)
    return _measure_multiclass(signature, outcomes, scores)


def primary_metric(
    signature: Signature, outcomes: Outcomes, scores: Floats, weights: Floats | None = None
) -> float:
    """The metric by which models are compared: higher is better, without a unit."""
    if signature.task == "binary":
        positive = outcomes == signature.classes[1]
        return float(roc_auc_score(positive, scores[:, 1], sample_weight=weights))
    if signature.task == "multiclass":
        predicted = np.asarray(signature.classes)[scores.argmax(axis=1)]
        return float(accuracy_score(outcomes, predicted, sample_weight=weights))
    return float(r2_score(outcomes, scores, sample_weight=weights))


def row_losses(signature: Signature, outcomes: Outcomes, scores: Floats) -> Floats:
    """Each row's loss by a proper rule, comparable between tasks: 0 is perfect.

    The Brier score of a classification (0 to 1); in a regression the squared error over the
    outcomes' variance, so that the mean is one minus R2.
    """
    if signature.task == "regression":
        losses: Floats = (scores - outcomes) ** 2 / (float(np.var(outcomes)) or 1.0)
        return losses
    happened = outcomes[:, None] == np.asarray(signature.classes)[None, :]
    brier: Floats = ((scores - happened) ** 2).sum(axis=1) / 2
    return brier


def metric_intervals(
    signature: Signature,
    outcomes: Outcomes,
    scores: Floats,
    clusters: NDArray[np.integer[Any]],
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """Every metric with its interval, by a bootstrap that draws whole clusters.

    Of many rows it draws fewer and scales the spread (m out of n). The calibration error is left
    out: resampling inflates it, ``calibration`` judges it.

    Raises:
        EvaluationError: too few draws hold every class.
    """
    random = np.random.default_rng(seed)
    order = np.argsort(clusters, kind="stable")
    rows_of = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    drawn = max(1, round(len(rows_of) * min(1, MOST_DRAWN_ROWS / len(outcomes))))
    draws: list[dict[str, float]] = []
    for _ in track(range(resamples), "measuring the metrics' intervals"):
        chosen = random.integers(0, len(rows_of), drawn)
        rows = np.concatenate([rows_of[cluster] for cluster in chosen])
        if not _missing_classes(signature, outcomes[rows]):
            draws.append(measure(signature, outcomes[rows], scores[rows]))
    _require_draws(len(draws), resamples)
    spread = np.sqrt(drawn / len(rows_of))
    tail = (1 - INTERVAL_LEVEL) / 2
    intervals = {}
    for name, value in measure(signature, outcomes, scores).items():
        if name == "calibration_error":
            continue
        found = np.asarray([draw[name] for draw in draws])
        low, high = value + spread * (np.quantile(found, [tail, 1 - tail]) - value)
        intervals[name] = Interval(
            estimate=value, low=float(low), high=float(high), level=INTERVAL_LEVEL
        )
    return intervals


def calibration(
    signature: Signature, outcomes: Outcomes, scores: Floats, seed: int
) -> tuple[float, float]:
    """The calibration error, and the largest that chance explains in a perfectly calibrated model.

    In a regression: mean distance of predicted and observed means, in the outcomes' standard
    deviations. Chance is found by drawing outcomes from the predictions themselves.
    """
    random = np.random.default_rng(seed)
    scale = 1.0
    if signature.task == "regression":
        observed, predicted = outcomes.astype(np.float64), scores
        scale = float(np.std(observed)) or 1.0
    elif signature.task == "binary":
        observed, predicted = outcomes == signature.classes[1], scores[:, 1]
    else:
        observed = outcomes == np.asarray(signature.classes)[scores.argmax(axis=1)]
        predicted = scores.max(axis=1)

    def drawn() -> Outcomes:
        if signature.task == "regression":
            residuals = observed - predicted
            return predicted + random.permutation(residuals - residuals.mean())
        return random.random(len(predicted)) < predicted

    chance = [calibration_error(drawn(), predicted) for _ in range(CALIBRATION_DRAWS)]
    error = calibration_error(observed, predicted)
    return error / scale, float(np.quantile(chance, INTERVAL_LEVEL)) / scale


def onnx_difference(signature: Signature, exported: Floats, own: Floats) -> float:
    """Largest difference between an export's and its estimator's scores, in probability.

    In a regression: in standard deviations of the estimator's values.
    """
    scale = (float(np.std(own)) or 1.0) if signature.task == "regression" else 1.0
    return float(np.abs(exported - own).max()) / scale


def paired_gain(
    signature: Signature,
    outcomes: Outcomes,
    candidate: Floats,
    other: Floats,
    clusters: NDArray[np.integer[Any]],
    resamples: int,
    seed: int,
) -> Interval:
    """The gain of one model over another in the primary metric on the same rows.

    A percentile bootstrap (Efron and Tibshirani 1993) that draws whole clusters, since rows of one
    customer are not independent.

    Args:
        signature: says the task and its classes.
        outcomes: (n,) true labels or values.
        candidate: scores of the model in question.
        other: scores of the model it is held against.
        clusters: (n,) number of each row's key, counted from 0.
        resamples: how many draws.
        seed: makes the interval repeatable.

    Raises:
        EvaluationError: too few draws hold every class.
    """
    random = np.random.default_rng(seed)
    count = int(clusters.max()) + 1
    share = np.full(count, 1 / count)

    def gain(weights: Floats | None) -> float:
        return primary_metric(signature, outcomes, candidate, weights) - primary_metric(
            signature, outcomes, other, weights
        )

    draws = []
    for _ in track(range(resamples), "measuring the gain's interval"):
        weights = random.multinomial(count, share)[clusters]
        draws.append(_or_nan(lambda weights=weights: gain(weights)))  # type: ignore[misc]
    known = np.asarray(draws)[np.isfinite(draws)]
    _require_draws(known.size, resamples)
    tail = (1 - INTERVAL_LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(estimate=gain(None), low=float(low), high=float(high), level=INTERVAL_LEVEL)


def _require_draws(usable: int, resamples: int) -> None:
    if usable < resamples * LEAST_USABLE_RESAMPLES:
        raise EvaluationError(
            f"only {usable} of {resamples} resamples of the rows hold every class: more rows are "
            "needed (ML_HOLDOUT_TIMES)"
        )


def _or_nan(metric: Callable[[], float]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        return metric()


def _missing_classes(signature: Signature, outcomes: Outcomes) -> list[Any]:
    return sorted(set(signature.classes) - set(np.unique(outcomes).tolist()), key=str)


def _require_classes(signature: Signature, outcomes: Outcomes) -> None:
    if missing := _missing_classes(signature, outcomes):
        raise EvaluationError(
            f"no row of the {len(outcomes):,} to evaluate on has the label {missing}: more rows or "
            "other example times are needed"
        )


def _measure_binary(signature: Signature, outcomes: Outcomes, scores: Floats) -> dict[str, float]:
    positive = outcomes == signature.classes[1]
    probability = scores[:, 1].clip(0, 1)  # votes that float32 adds up to a little over 1
    predicted = probability > 0.5
    return {
        "accuracy": float(accuracy_score(positive, predicted)),
        "f1": float(f1_score(positive, predicted, zero_division=0)),
        "roc_auc": float(roc_auc_score(positive, probability)),
        "pr_auc": float(average_precision_score(positive, probability)),
        "log_loss": float(log_loss(positive, probability, labels=[False, True])),
        "brier": float(brier_score_loss(positive, probability)),
        "calibration_error": calibration_error(positive, probability),
    }


def _measure_multiclass(
    signature: Signature, outcomes: Outcomes, scores: Floats
) -> dict[str, float]:
    classes = np.asarray(signature.classes)
    normalized = scores / scores.sum(axis=1, keepdims=True)
    predicted = classes[scores.argmax(axis=1)]
    one_hot = outcomes[:, None] == classes[None, :]
    return {
        "accuracy": float(accuracy_score(outcomes, predicted)),
        "f1": float(f1_score(outcomes, predicted, average="macro", zero_division=0)),
        "roc_auc": float(roc_auc_score(outcomes, normalized, multi_class="ovr", labels=classes)),
        "pr_auc": float(average_precision_score(one_hot, normalized, average="macro")),
        "log_loss": float(log_loss(outcomes, normalized, labels=classes)),
        "calibration_error": calibration_error(outcomes == predicted, scores.max(axis=1)),
    }


def _measure_regression(outcomes: Outcomes, values: Floats) -> dict[str, float]:
    return {
        "r2": float(r2_score(outcomes, values)),
        "rmse": float(root_mean_squared_error(outcomes, values)),
        "mae": float(mean_absolute_error(outcomes, values)),
        "mean_error": float(np.mean(values - outcomes)),
    }


def calibration_error(observed: Outcomes, predicted: Floats) -> float:
    """Mean distance of predicted and observed means over bins of about equally many rows."""
    inner = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    bins = np.searchsorted(np.quantile(predicted, inner), predicted)
    rows = np.bincount(bins)
    distances = np.abs(np.bincount(bins, weights=observed - predicted))
    return float((distances[rows > 0] / rows[rows > 0]).mean())
