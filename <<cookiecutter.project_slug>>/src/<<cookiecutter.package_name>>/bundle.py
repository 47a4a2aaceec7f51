"""A model as files: ONNX, signature, profile, metadata and checksums; write, verify, read.

A bundle is a folder::

    model.onnx      inputs `numbers` (n, k) float32 and/or `strings` (n, m); the last output is the
                    probabilities (n, classes) of a classification or the values of a regression
    metadata.json   signature, metrics, lineage
    profile.json    how each feature was distributed in the hold-out
    SHA256SUMS      of the three, as `sha256sum --check` reads it

Nothing in it is executable or unpickled, and whoever reads a bundle verifies it first.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ProjectError
from .schema import Blocks, Signature

if TYPE_CHECKING:
    import onnxruntime

MODEL_FILE = "model.onnx"
METADATA_FILE = "metadata.json"
PROFILE_FILE = "profile.json"
CHECKSUM_FILE = "SHA256SUMS"
CONTENT_FILES = (METADATA_FILE, MODEL_FILE, PROFILE_FILE)


class BundleError(ProjectError):
    """A bundle is missing, incomplete or altered."""


class RunReference(BaseModel):
    """The tracked run that made a model."""

    model_config = ConfigDict(frozen=True)

    tracker: str
    id: str
    url: str | None = None


class Interval(BaseModel):
    """A confidence interval of a paired difference."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    estimate: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.estimate:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"

    def figures(self, name: str) -> dict[str, float]:
        """The estimate under this name, the ends under it with ``_low`` and ``_high``."""
        return {name: self.estimate, f"{name}_low": self.low, f"{name}_high": self.high}

    @classmethod
    def from_figures(cls, name: str, figures: Mapping[str, float]) -> Interval:
        """What ``figures`` made."""
        return cls(estimate=figures[name], low=figures[f"{name}_low"], high=figures[f"{name}_high"])


class Metadata(BaseModel):
    """Where a model comes from and how it did; a metric that is not defined is NaN."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    model_name: str
    signature: Signature
    key: str = "user_id"
    feature_ttl: timedelta = timedelta(days=1)
    created_at: datetime
    as_of: datetime
    estimator: str
    parameters: dict[str, Any]
    primary_metric: str
    metrics: dict[str, float]
    baseline_metrics: dict[str, float]
    gain_over_baseline: Interval
    onnx_difference: float
    data_fingerprint: str
    git_commit: str | None
    run: RunReference | None
    packages: dict[str, str]
    training_rows: int | None = None

    def summary(self) -> dict[str, float]:
        """The metrics by which a run is found and compared."""
        return {
            **self.metrics,
            **{f"baseline_{name}": value for name, value in self.baseline_metrics.items()},
            **self.gain_over_baseline.figures("gain_over_baseline"),
            "onnx_difference": self.onnx_difference,
        }


class NumberProfile(BaseModel):
    """A histogram: ``counts[i]`` values lie at or below ``edges[i]``, the last above all edges."""

    model_config = ConfigDict(frozen=True)

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    least: float | None = None
    most: float | None = None
    missing: int = 0

    @model_validator(mode="after")
    def _check(self) -> NumberProfile:
        if not all(low < high for low, high in pairwise((-inf, *self.edges, inf))):
            raise ValueError(f"edges must be finite and rise, not {self.edges}")
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges need one count more, not {self.counts}")
        return self


class StringProfile(BaseModel):
    """How often each of the commonest categories occurred; ``other`` counts the rest."""

    model_config = ConfigDict(frozen=True)

    counts: dict[str, int]
    other: int = 0
    missing: int = 0


class Profile(BaseModel):
    """How the rows that a model was judged on are distributed, feature by feature.

    The model's answers to them stand beside the features, as ``prediction`` and ``confidence``.
    """

    model_config = ConfigDict(frozen=True)

    rows: int
    numbers: dict[str, NumberProfile] = Field(default_factory=dict)
    strings: dict[str, StringProfile] = Field(default_factory=dict)


class Bundle(BaseModel):
    """A verified bundle in memory; ``model`` is the serialized ONNX graph."""

    model_config = ConfigDict(frozen=True)

    model: bytes = Field(repr=False)
    metadata: Metadata
    profile: Profile

    @property
    def signature(self) -> Signature:
        """What the model reads and answers."""
        return self.metadata.signature

    def scorer(self, threads: int = 1) -> Scorer:
        """Open the model for scoring with so many threads a call."""
        return Scorer(self.model, self.signature, threads)


class Scorer:
    """An ONNX Runtime session that speaks in the signature's terms. Safe to share by threads."""

    def __init__(self, model: bytes, signature: Signature, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.signature = signature
        self._session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._output = [self._session.get_outputs()[-1].name]

    def scores(self, blocks: Blocks) -> NDArray[np.float32]:
        """Score rows.

        Returns:
            (n, classes) probabilities of a classification, (n,) values of a regression.
        """
        (scores,) = self._session.run(self._output, blocks)
        array: NDArray[np.float32] = np.asarray(scores, np.float32)
        return array.reshape(-1) if self.signature.task == "regression" else array

    def answers(self, scores: NDArray[np.float32]) -> list[tuple[Any, float | None]]:
        """Turn scores into (class, its probability) or, in a regression, (value, None)."""
        if self.signature.task == "regression":
            return [(value, None) for value in scores.tolist()]
        best = scores.argmax(axis=1)
        confidence = scores[np.arange(len(scores)), best].tolist()
        classes = self.signature.classes
        return [(classes[i], p) for i, p in zip(best.tolist(), confidence, strict=True)]


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write a bundle; the folder appears complete or not at all.

    Raises:
        BundleError: the folder exists.
    """
    if folder.exists():
        raise BundleError(f"{folder} exists: a bundle is written once, choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    contents = {
        MODEL_FILE: bundle.model,
        METADATA_FILE: bundle.metadata.model_dump_json(indent=2).encode(),
        PROFILE_FILE: bundle.profile.model_dump_json(indent=2).encode(),
    }
    staging = Path(tempfile.mkdtemp(prefix=".bundle-", dir=folder.parent))
    try:
        for name, content in contents.items():
            (staging / name).write_bytes(content)
        (staging / CHECKSUM_FILE).write_text(_checksum_lines(staging), encoding="ascii")
        staging.chmod(0o755)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging)
        raise


def read_bundle(folder: Path) -> Bundle:
    """Verify a bundle's checksums and read it.

    Raises:
        BundleError: a file is missing, altered or not what this version of the code writes.
    """
    contents = _verified(folder)
    try:
        return Bundle(
            model=contents[MODEL_FILE],
            metadata=Metadata.model_validate_json(contents[METADATA_FILE]),
            profile=Profile.model_validate_json(contents[PROFILE_FILE]),
        )
    except ValidationError as error:
        raise BundleError(f"{folder} is not a bundle this version can read: {error}") from error


def _verified(folder: Path) -> dict[str, bytes]:
    try:
        contents = {name: (folder / name).read_bytes() for name in CONTENT_FILES}
        listed = (folder / CHECKSUM_FILE).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder} is no complete bundle: {error}") from error
    expected = {name: _checksum_line(name, contents[name]).encode() for name in CONTENT_FILES}
    if listed != b"".join(expected.values()):
        altered = [name for name, line in expected.items() if line not in listed]
        raise BundleError(
            f"{folder} does not match its {CHECKSUM_FILE} "
            f"({', '.join(altered) or CHECKSUM_FILE} was altered): download it again"
        )
    return contents


def _checksum_lines(folder: Path, names: Iterable[str] = CONTENT_FILES) -> str:
    return "".join(_checksum_line(name, (folder / name).read_bytes()) for name in names)


def _checksum_line(name: str, content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n"
