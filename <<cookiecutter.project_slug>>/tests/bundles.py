"""Served folders for tests: real bundles below the versions and aliases that a server watches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression

from <<cookiecutter.package_name>>.bundle import Bundle, write_bundle
from <<cookiecutter.package_name>>.export import to_onnx
from <<cookiecutter.package_name>>.holdout import ESTIMATOR, read_holdout
from <<cookiecutter.package_name>>.served_models import PRODUCTION, add_version, write_aliases
from <<cookiecutter.package_name>>.settings import Settings
from <<cookiecutter.package_name>>.trained_model import BUNDLE_FOLDER, EVALUATION_FILE

from .trained import SIGNATURES, Trained, write_trained_model

CASES = tuple(SIGNATURES)


class Models:
    """Trained models by case and seed, each fitted once and kept in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._trained: dict[tuple[str, int], Trained] = {}

    def get(self, case: str = "binary", seed: int = 0) -> Trained:
        if (case, seed) not in self._trained:
            folder = self._root / f"{case}-{seed}"
            self._trained[case, seed] = write_trained_model(folder, case, seed=seed)
        return self._trained[case, seed]


def server_settings(home: Path, **changes: Any) -> Settings:
    """Settings of a server whose home is this folder and that looks for models all the time."""
    values = {"home": home, "model_poll_seconds": 0.02, **changes}
    return Settings(_env_file=None, **values)


def publish(settings: Settings, version: str, model: Trained | Path) -> None:
    """Put a trained model, or a bundle's folder, into production below the served folder."""
    folder = model.folder / BUNDLE_FOLDER if isinstance(model, Trained) else model
    add_version(settings.served_dir, version, folder)
    write_aliases(settings.served_dir, {PRODUCTION: version})


def rewritten_bundle(folder: Path, model: Trained, /, **changes: Any) -> Path:
    """A trained model's bundle with other content and checksums that match it."""
    write_bundle(folder, Bundle.model_validate({**dict(model.bundle), **changes}))
    return folder


def overflowing_model() -> bytes:
    """An ONNX graph of the case "one number" that answers large values with infinity."""
    features = np.array([[1.0], [2.0]])
    return to_onnx(LinearRegression().fit(features, [1e6, 2e6]), SIGNATURES["one number"])


def rows_of(model: Trained) -> list[list[Any]]:
    """The model's hold-out rows as a client would send them."""
    columns = [
        [_sent(value, feature.type) for value in model.rows[feature.name]]
        for feature in model.bundle.signature.features
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def estimator_answers(model: Trained) -> list[tuple[Any, float | None]]:
    """What scikit-learn itself said of the hold-out rows, as (prediction, confidence)."""
    signature = model.bundle.signature
    scores = read_holdout(model.folder / EVALUATION_FILE, signature).scores[ESTIMATOR]
    if signature.task == "regression":
        return [(value, None) for value in scores.tolist()]
    return [(signature.classes[row.argmax()], float(row.max())) for row in scores]


def _sent(value: Any, kind: str) -> Any:
    return str(value) if kind == "string" else int(value) if kind == "int" else float(value)
