"""Gradient boosting by LightGBM (pip install lightgbm onnxmltools), against the commoner label."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier

from .schema import NUMBERS, Signature, Task

TASK: Task = "binary"

PARAMETERS: dict[str, Any] = {"n_estimators": 60, "num_leaves": 7, "learning_rate": 0.1}


class Boosting(lightgbm.LGBMClassifier):
    """LightGBM's classifier with an export of its own."""

    def to_onnx(self, signature: Signature) -> bytes:
        """The graph: one block of numbers in, probabilities out."""
        inputs = [(NUMBERS, FloatTensorType([None, len(signature.features)]))]
        graph = convert_lightgbm(self.booster_, initial_types=inputs, zipmap=False)
        self._round_down(graph)
        exported: bytes = graph.SerializeToString()
        return exported

    def _round_down(self, graph: Any) -> None:
        """LightGBM compares with 64 bits, the graph with 32: no threshold may move past a value."""
        exact = self.booster_.trees_to_dataframe()["threshold"].dropna().unique()
        lower = {
            float(rounded): float(np.nextafter(rounded, np.float32(-np.inf)))
            for rounded, threshold in zip(exact.astype(np.float32), exact, strict=True)
            if rounded > threshold
        }
        for node in graph.graph.node:
            for attribute in node.attribute:
                if attribute.name == "nodes_values":
                    attribute.floats[:] = [lower.get(value, value) for value in attribute.floats]


def estimator(parameters: dict[str, Any], seed: int) -> BaseEstimator:
    """The model, not yet fitted."""
    return Boosting(**parameters, random_state=seed, n_jobs=1, verbose=-1)


def baseline(seed: int) -> BaseEstimator:
    """What the model must beat."""
    return DummyClassifier(strategy="prior", random_state=seed)
