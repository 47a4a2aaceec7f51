"""A home folder as ``data simulate`` and ``train`` leave it, for tests to read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from <<cookiecutter.package_name>> import model
from <<cookiecutter.package_name>>.bundle import read_bundle, write_bundle
from <<cookiecutter.package_name>>.export import estimator_scores, to_onnx
from <<cookiecutter.package_name>>.holdout import BASELINE, ESTIMATOR, Holdout, read_holdout
from <<cookiecutter.package_name>>.purchases import simulate
from <<cookiecutter.package_name>>.settings import Settings
from <<cookiecutter.package_name>>.trained_model import BUNDLE_FOLDER, EVALUATION_FILE
from <<cookiecutter.package_name>>.training import TrainedModel, train

CUSTOMERS = 1_000
UNTIL = date(2026, 1, 1)


@dataclass(frozen=True)
class TrainedHome:
    """A home folder with simulated data, one trained model and one that learned noise."""

    settings: Settings
    model: TrainedModel
    noise: Path


def make_trained_home(home: Path) -> TrainedHome:
    """Simulate, train, and train once more on shuffled outcomes."""
    settings = Settings(home=home, bootstrap_resamples=40)
    simulate(settings, CUSTOMERS, seed=7, until=UNTIL, replace=False)
    trained = train(settings)
    return TrainedHome(settings, trained, _learn_noise(trained, home / "noise"))


def _learn_noise(trained: TrainedModel, folder: Path) -> Path:
    signature = trained.bundle.signature
    rows = read_holdout(trained.folder / EVALUATION_FILE, signature)
    shuffled = np.random.default_rng(0).permutation(rows.outcomes)
    fitted = model.estimator(model.PARAMETERS, 0).fit(rows.features, shuffled)
    write_bundle(
        folder / BUNDLE_FOLDER,
        read_bundle(trained.folder / BUNDLE_FOLDER).model_copy(
            update={"model": to_onnx(fitted, signature)}
        ),
    )
    own = estimator_scores(fitted, signature, rows.features)
    scores = {ESTIMATOR: own, BASELINE: rows.scores[BASELINE]}
    Holdout(rows.features, rows.outcomes, rows.clusters, scores).write(folder / EVALUATION_FILE)
    return folder
