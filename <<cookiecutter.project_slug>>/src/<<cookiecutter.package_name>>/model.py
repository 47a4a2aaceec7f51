"""YOUR MODEL: the task, the estimator with its hyper-parameters, and the baseline to beat.

This is the second of the two files to edit for a problem of your own (the first is data.py).
An estimator is anything with scikit-learn's interface that skl2onnx can export. It is fitted on a
data frame of the features: float32 columns, and text columns for features of type ``string``.
"""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .schema import Task

TASK: Task = "binary"

PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.05,
    "max_iter": 100,
    "max_leaf_nodes": 6,
    "min_samples_leaf": 100,
    "l2_regularization": 5.0,
}

SEARCH_SPACE: dict[str, list[Any]] = {
    "learning_rate": [0.03, 0.05, 0.1],
    "max_iter": [50, 100, 200],
    "max_leaf_nodes": [4, 6, 12, 24],
    "min_samples_leaf": [20, 100, 300],
    "l2_regularization": [0.0, 5.0, 20.0],
}
"""What a pipeline run tries beside PARAMETERS (ML_SEARCH_BUDGET)."""


def estimator(parameters: dict[str, Any], seed: int) -> BaseEstimator:
    """The model, not yet fitted; ``parameters`` are PARAMETERS with the settings' on top."""
    return HistGradientBoostingClassifier(**parameters, early_stopping=False, random_state=seed)


def baseline(seed: int) -> BaseEstimator:
    """What the model must beat: a rule on recency alone."""
    recency = ColumnTransformer([("recency", StandardScaler(), ["days_since_last_purchase"])])
    return make_pipeline(recency, LogisticRegression(random_state=seed))
