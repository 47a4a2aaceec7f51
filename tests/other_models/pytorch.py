"""A small network by PyTorch (pip install torch onnxscript), against the commoner label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier

from .schema import NUMBERS, Signature, Task

TASK: Task = "binary"

PARAMETERS: dict[str, Any] = {"hidden": 16, "epochs": 200, "learning_rate": 0.01}


class Network(ClassifierMixin, BaseEstimator):
    """One hidden layer on scaled numbers, with scikit-learn's interface."""

    def __init__(self, hidden: int, epochs: int, learning_rate: float, seed: int) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.seed = seed

    def fit(self, rows: pd.DataFrame, outcomes: np.ndarray) -> Network:
        """Train on all rows at once."""
        torch.manual_seed(self.seed)
        self.classes_, labels = np.unique(outcomes, return_inverse=True)
        numbers = torch.tensor(rows.to_numpy(np.float32))
        scale = Scale(numbers.mean(0), numbers.std(0).clamp_min(1e-6))
        layers = (
            torch.nn.Linear(numbers.shape[1], self.hidden),
            torch.nn.ReLU(),
            torch.nn.Linear(self.hidden, len(self.classes_)),
        )
        logits = torch.nn.Sequential(scale, *layers)
        steps = torch.optim.Adam(logits.parameters(), self.learning_rate)
        for _ in range(self.epochs):
            steps.zero_grad()
            loss = torch.nn.functional.cross_entropy(logits(numbers), torch.tensor(labels))
            loss.backward()
            steps.step()
        self.network_ = torch.nn.Sequential(logits, torch.nn.Softmax(dim=1)).eval()
        return self

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        """Probabilities, shape (n, classes)."""
        with torch.no_grad():
            return self.network_(torch.tensor(rows.to_numpy(np.float32))).numpy()

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        """The likeliest class of each row."""
        return self.classes_[self.predict_proba(rows).argmax(axis=1)]

    def to_onnx(self, signature: Signature) -> bytes:
        """The graph: one block of numbers in, probabilities out."""
        example = torch.zeros(2, len(signature.features))
        program = torch.onnx.export(
            self.network_,
            (example,),
            input_names=[NUMBERS],
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            dynamo=True,
            verbose=False,
        )
        return program.model_proto.SerializeToString()


class Scale(torch.nn.Module):
    """Shifts and scales each column by the training rows' mean and deviation."""

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Scale a block."""
        return (numbers - self.mean) / self.deviation


def estimator(parameters: dict[str, Any], seed: int) -> BaseEstimator:
    """The model, not yet fitted."""
    return Network(**parameters, seed=seed)


def baseline(seed: int) -> BaseEstimator:
    """What the model must beat."""
    return DummyClassifier(strategy="prior", random_state=seed)
