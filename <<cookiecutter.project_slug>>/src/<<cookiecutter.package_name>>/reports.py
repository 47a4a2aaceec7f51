"""Pictures and tables of a trained model: what people look at before they trust it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.calibration import CalibrationDisplay
from sklearn.inspection import permutation_importance
from sklearn.metrics import ConfusionMatrixDisplay, PredictionErrorDisplay, RocCurveDisplay

from .evaluation import PRIMARY_METRIC, Floats, Outcomes
from .holdout import ESTIMATOR, Holdout
from .schema import Signature

IMPORTANCE_ROWS = 5_000
IMPORTANCE_REPEATS = 5


def write_reports(
    folder: Path, signature: Signature, estimator: Any, holdout: Holdout, seed: int
) -> None:
    """Write the task's pictures (PNG) and the feature importance (CSV and PNG).

    Args:
        folder: where to; it is made.
        signature: says the task and its classes.
        estimator: the fitted model, for the importance.
        holdout: rows with the scores of the model and of the baseline.
        seed: of the importance's shuffles.
    """
    folder.mkdir(parents=True)
    importance = _importance(signature, estimator, holdout, seed)
    importance.to_csv(folder / "feature_importance.csv", index=False)
    figures = {"feature_importance": _importance_figure(importance)}
    if signature.task == "regression":
        figures["predicted_against_actual"] = _prediction_error(holdout)
    else:
        figures["confusion_matrix"] = _confusion(signature, holdout)
        figures["calibration"] = _calibration(signature, holdout.outcomes, holdout.scores)
        figures["roc"] = _roc(signature, holdout.outcomes, holdout.scores)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110)


def _importance(signature: Signature, estimator: Any, holdout: Holdout, seed: int) -> pd.DataFrame:
    """Permutation importance (Breiman 2001): the loss in the primary metric without a feature."""
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(holdout))[:IMPORTANCE_ROWS])
    result = permutation_importance(
        estimator,
        holdout.features.iloc[rows],
        holdout.outcomes[rows],
        scoring=PRIMARY_METRIC[signature.task],
        n_repeats=IMPORTANCE_REPEATS,
        random_state=seed,
    )
    table = pd.DataFrame(
        {
            "feature": signature.names,
            "importance": result.importances_mean,
            "deviation": result.importances_std,
        }
    )
    return table.sort_values("importance", ascending=False, ignore_index=True)


def _importance_figure(importance: pd.DataFrame) -> Figure:
    figure, axes = _figure("What the model loses without a feature")
    shown = importance.iloc[::-1]
    axes.barh(shown["feature"], shown["importance"], xerr=shown["deviation"])
    axes.set_xlabel("loss in the primary metric")
    return figure


def _confusion(signature: Signature, holdout: Holdout) -> Figure:
    figure, axes = _figure("Confusion matrix on the hold-out")
    classes = np.asarray(signature.classes)
    predicted = classes[holdout.scores[ESTIMATOR].argmax(axis=1)]
    ConfusionMatrixDisplay.from_predictions(
        holdout.outcomes, predicted, labels=classes, ax=axes, colorbar=False
    )
    return figure


def _calibration(signature: Signature, outcomes: Outcomes, scores: dict[str, Floats]) -> Figure:
    figure, axes = _figure("Calibration on the hold-out")
    for name, probabilities in scores.items():
        for index, label in _shown_classes(signature):
            CalibrationDisplay.from_predictions(
                outcomes == label,
                probabilities[:, index].clip(0, 1),
                n_bins=10,
                strategy="quantile",
                name=_curve_name(signature, name, label),
                ax=axes,
            )
    return figure


def _roc(signature: Signature, outcomes: Outcomes, scores: dict[str, Floats]) -> Figure:
    figure, axes = _figure("ROC on the hold-out")
    for name, probabilities in scores.items():
        for index, label in _shown_classes(signature):
            RocCurveDisplay.from_predictions(
                outcomes == label,
                probabilities[:, index],
                name=_curve_name(signature, name, label),
                ax=axes,
            )
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    return figure


def _prediction_error(holdout: Holdout) -> Figure:
    figure, axes = _figure("Predicted against actual on the hold-out")
    PredictionErrorDisplay.from_predictions(
        holdout.outcomes, holdout.scores[ESTIMATOR], kind="actual_vs_predicted", ax=axes
    )
    return figure


def _shown_classes(signature: Signature) -> list[tuple[int, int | str]]:
    indexed = list(enumerate(signature.classes))
    return indexed[1:] if signature.task == "binary" else indexed


def _curve_name(signature: Signature, name: str, label: int | str) -> str:
    return name if signature.task == "binary" else f"{name}: {label}"


def _figure(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes
