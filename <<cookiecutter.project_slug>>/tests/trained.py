"""Trained models for tests: small, but fitted, exported and laid out as ``train`` does it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from <<cookiecutter.package_name>>.bundle import Bundle, Metadata, RunReference, write_bundle
from <<cookiecutter.package_name>>.evaluation import PRIMARY_METRIC, measure, paired_gain
from <<cookiecutter.package_name>>.export import estimator_scores, to_onnx
from <<cookiecutter.package_name>>.holdout import BASELINE, ESTIMATOR, Holdout
from <<cookiecutter.package_name>>.profiling import profile
from <<cookiecutter.package_name>>.schema import Feature, Signature
from <<cookiecutter.package_name>>.trained_model import (
    BUNDLE_FOLDER,
    EVALUATION_FILE,
    REPORTS_FOLDER,
)

AMOUNT = Feature(name="amount")
VISITS = Feature(name="visits", type="int")
CITY = Feature(name="city", type="string")
TIER = Feature(name="tier", type="string")

SIGNATURES = {
    "binary": Signature(task="binary", label="buys", features=(AMOUNT, VISITS), classes=(0, 1)),
    "multiclass": Signature(
        task="multiclass",
        label="segment",
        features=(CITY, AMOUNT, TIER, VISITS),
        classes=("high", "low", "middle"),
    ),
    "regression": Signature(task="regression", label="spend", features=(AMOUNT, CITY)),
    "whole numbers": Signature(
        task="multiclass",
        label="group",
        features=(VISITS, Feature(name="days", type="int")),
        classes=(10, 20, 30),
    ),
    "one number": Signature(task="regression", label="spend", features=(AMOUNT,)),
    "one text": Signature(task="binary", label="buys", features=(CITY,), classes=("no", "yes")),
}


@dataclass(frozen=True)
class Trained:
    """A trained model's folder and some of the rows that it was fitted on."""

    folder: Path
    bundle: Bundle
    rows: pd.DataFrame


def sample_rows(signature: Signature, count: int = 400, seed: int = 0) -> pd.DataFrame:
    """Rows whose outcome depends on every feature."""
    random = np.random.default_rng(seed)
    rows = pd.DataFrame()
    total = np.zeros(count)
    for feature in signature.features:
        if feature.type == "string":
            codes = random.integers(0, 3, count)
            rows[feature.name] = np.array(["berlin", "køge", ""], object)[codes]
        elif feature.type == "int":
            codes = random.integers(0, 12, count)
            rows[feature.name] = codes.astype(np.float32)
        else:
            codes = random.gamma(2, 20, count)
            rows[feature.name] = codes.astype(np.float32)
        total += (codes - codes.mean()) / codes.std()
    total += random.normal(0, 0.3, count)
    if signature.task == "regression":
        rows[signature.label] = total
        return rows
    edges = np.quantile(total, np.linspace(0, 1, len(signature.classes) + 1)[1:-1])
    labels = np.array(signature.classes, object)[np.searchsorted(edges, total)]
    return rows.assign(**{signature.label: pd.Series(labels).infer_objects()})


def write_trained_model(
    folder: Path, case: str = "binary", run: RunReference | None = None, seed: int = 0, **facts: Any
) -> Trained:
    """Fit, evaluate and export a model into a new folder; ``facts`` replace its metadata's."""
    signature = SIGNATURES[case]
    rows = sample_rows(signature, seed=seed)
    development, kept = rows.iloc[:300], rows.iloc[300:].reset_index(drop=True)
    fitted = _fit(_estimator(signature), signature, development)
    holdout = _holdout(signature, kept, fitted, _fit(_baseline(signature), signature, development))
    bundle = Bundle(
        model=to_onnx(fitted, signature),
        metadata=Metadata.model_validate({**_facts(signature, holdout), "run": run, **facts}),
        profile=profile(signature, kept, holdout.scores[ESTIMATOR]),
    )
    write_bundle(folder / BUNDLE_FOLDER, bundle)
    holdout.write(folder / EVALUATION_FILE)
    _write_reports(folder / REPORTS_FOLDER)
    return Trained(folder, bundle, kept)


def _estimator(signature: Signature) -> Any:
    # Linear models start no threads, which tests that run in parallel would wait for.
    linear = Ridge() if signature.task == "regression" else LogisticRegression()
    if not signature.string_names:
        return make_pipeline(StandardScaler(), linear)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = [
        ("numbers", StandardScaler(), list(signature.number_names)),
        ("strings", encoder, list(signature.string_names)),
    ]
    return make_pipeline(ColumnTransformer([column for column in columns if column[2]]), linear)


def _baseline(signature: Signature) -> Any:
    return DummyRegressor() if signature.task == "regression" else DummyClassifier()


def _fit(estimator: Any, signature: Signature, rows: pd.DataFrame) -> Any:
    return estimator.fit(rows[list(signature.names)], rows[signature.label].to_numpy())


def _holdout(signature: Signature, rows: pd.DataFrame, fitted: Any, baseline: Any) -> Holdout:
    return Holdout(
        features=rows[list(signature.names)],
        outcomes=rows[signature.label].to_numpy(),
        clusters=np.arange(len(rows)),
        scores={
            ESTIMATOR: estimator_scores(fitted, signature, rows),
            BASELINE: estimator_scores(baseline, signature, rows),
        },
    )


def _facts(signature: Signature, holdout: Holdout) -> dict[str, Any]:
    own, baseline = holdout.scores[ESTIMATOR], holdout.scores[BASELINE]
    return {
        "model_name": "sample-model",
        "signature": signature,
        "created_at": datetime(2024, 5, 2, tzinfo=timezone.utc),
        "as_of": datetime(2024, 5, 1),
        "estimator": "Pipeline",
        "parameters": {"C": 1.0},
        "primary_metric": PRIMARY_METRIC[signature.task],
        "metrics": measure(signature, holdout.outcomes, own),
        "baseline_metrics": measure(signature, holdout.outcomes, baseline),
        "gain_over_baseline": paired_gain(
            signature, holdout.outcomes, own, baseline, holdout.clusters, resamples=20, seed=0
        ),
        "onnx_difference": 1e-7,
        "data_fingerprint": "5a" * 32,
        "git_commit": "c0ffee" + "0" * 34,
        "packages": {"scikit-learn": "1.9"},
    }


def _write_reports(folder: Path) -> None:
    folder.mkdir()
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    figure.savefig(folder / "roc.png")
    table = pd.DataFrame({"feature": ["amount"], "importance": [0.5]})
    table.to_csv(folder / "feature_importance.csv", index=False)
