"""A logistic regression on scaled numbers and encoded text, against the commonest species."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from .data import FEATURES
from .schema import Task

TASK: Task = "multiclass"

PARAMETERS: dict[str, Any] = {"C": 1.0}

NUMBERS = [feature.name for feature in FEATURES if feature.type != "string"]
STRINGS = [feature.name for feature in FEATURES if feature.type == "string"]


def estimator(parameters: dict[str, Any], seed: int) -> BaseEstimator:
    """The model, not yet fitted."""
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), NUMBERS), ("strings", encoder, STRINGS)]
    )
    return make_pipeline(columns, LogisticRegression(**parameters, random_state=seed))


def baseline(seed: int) -> BaseEstimator:
    """What the model must beat."""
    return DummyClassifier(strategy="prior", random_state=seed)
