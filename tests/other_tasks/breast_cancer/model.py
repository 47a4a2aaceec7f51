"""A random forest against a rule on one measurement."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .schema import Task

TASK: Task = "binary"

PARAMETERS: dict[str, Any] = {"n_estimators": 50, "max_depth": 6}


def estimator(parameters: dict[str, Any], seed: int) -> BaseEstimator:
    """The model, not yet fitted."""
    return RandomForestClassifier(**parameters, random_state=seed)


def baseline(seed: int) -> BaseEstimator:
    """What the model must beat: the size of the nucleus alone."""
    size = ColumnTransformer([("size", StandardScaler(), ["mean_radius"])])
    return make_pipeline(size, LogisticRegression(random_state=seed))
