"""The words that data, model, bundle and server share: features, task and signature."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

FeatureType = Literal["float", "int", "string"]
Task = Literal["binary", "multiclass", "regression"]
ClassLabel = int | str

NUMBERS = "numbers"
STRINGS = "strings"
ANSWER_FIELDS = ("prediction", "confidence")
LOG_FIELDS = (
    *("request_id", "at", "model_version", "variant", "experiment", "shadow", "user_id"),
    *("latency_seconds", "outcome"),
)
Blocks = dict[str, NDArray[Any]]


class Columns(Protocol):
    """Columns by name: a dictionary of sequences or a data frame."""

    def __getitem__(self, name: str, /) -> Any:
        """One column's values."""


class Feature(BaseModel):
    """One input of the model; a pipeline run stops where a value lies outside its range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    type: FeatureType = "float"
    description: str = ""
    minimum: float | None = None
    maximum: float | None = None


class Signature(BaseModel):
    """What a model reads and what it answers.

    ``classes`` are the labels of a classification in the order of the model's probabilities
    (a binary task's second class is the positive one); a regression has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    label: str
    features: tuple[Feature, ...] = Field(min_length=1)
    classes: tuple[ClassLabel, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Signature:
        names = [feature.name for feature in self.features]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"features are named twice: {', '.join(repeated)}")
        if self.label in names:
            raise ValueError(f"the label {self.label!r} is also a feature: the model would see it")
        if taken := [name for name in ANSWER_FIELDS if name in names]:
            raise ValueError(f"{taken[0]!r} is a field of the answer: rename the feature")
        if taken := [name for name in LOG_FIELDS if name in names]:
            raise ValueError(f"{taken[0]!r} is a column of the log: rename the feature")
        if (self.task == "regression") != (not self.classes):
            raise ValueError(f"a {self.task} task cannot have the classes {self.classes}")
        if self.task == "binary" and len(self.classes) != 2:
            raise ValueError(f"a binary task needs two classes, not {self.classes}")
        if len(set(self.classes)) < len(self.classes) or len(set(map(type, self.classes))) > 1:
            raise ValueError(f"classes must differ and be of one type, not {self.classes}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Every feature's name, in the order of a request's list."""
        return tuple(feature.name for feature in self.features)

    @property
    def number_names(self) -> tuple[str, ...]:
        """Features of the float32 block, in its column order."""
        return tuple(feature.name for feature in self.features if feature.type != "string")

    @property
    def string_names(self) -> tuple[str, ...]:
        """Features of the string block, in its column order."""
        return tuple(feature.name for feature in self.features if feature.type == "string")

    def blocks(self, columns: Columns) -> Blocks:
        """Arrange columns as the model's input.

        Args:
            columns: each feature's values, all of one length n.

        Returns:
            ``numbers``, float32 of shape (n, number features), and ``strings``, objects of shape
            (n, string features); a block without a column is left out.
        """
        arranged: Blocks = {}
        if self.number_names:
            arranged[NUMBERS] = np.column_stack(
                [np.asarray(columns[name], np.float32) for name in self.number_names]
            )
        if self.string_names:
            arranged[STRINGS] = np.column_stack(
                [np.asarray(columns[name], object) for name in self.string_names]
            )
        return arranged
