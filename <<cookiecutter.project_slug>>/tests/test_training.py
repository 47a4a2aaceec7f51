from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from <<cookiecutter.package_name>> import data, features, model
from <<cookiecutter.package_name>>.bundle import read_bundle
from <<cookiecutter.package_name>>.evaluation import measure
from <<cookiecutter.package_name>>.export import ExportError
from <<cookiecutter.package_name>>.holdout import ESTIMATOR, read_holdout
from <<cookiecutter.package_name>>.settings import Settings
from <<cookiecutter.package_name>>.training import (
    TrainingError,
    _proven_difference,
    candidates,
    split_by_time,
    train,
)

from .homes import TrainedHome


def frame(*times: str) -> pd.DataFrame:
    return pd.DataFrame({features.TIMESTAMP: pd.to_datetime(list(times)), "row": range(len(times))})


def test_the_holdout_is_the_newest_times_and_no_earlier_outcome_reaches_into_it() -> None:
    split = split_by_time(
        frame("2025-01-01", "2025-02-01", "2025-02-20", "2025-03-03", "2025-04-02"), 2
    )
    assert split.holdout["row"].tolist() == [3, 4]
    # The outcome of 20 February shows until 22 March, after the hold-out begins.
    assert split.development["row"].tolist() == [0, 1]


def test_the_newest_times_can_be_trained_on_alone() -> None:
    times = ("2025-01-01", "2025-02-01", "2025-03-05", "2025-04-05", "2025-05-06")
    for kept, expected in ((1, [2]), (2, [1, 2]), (9, [0, 1, 2])):
        split = split_by_time(frame(*times), 2, kept)
        assert split.development["row"].tolist() == expected
        assert split.holdout["row"].tolist() == [3, 4]


def test_a_fold_is_fitted_on_its_own_past() -> None:
    split = split_by_time(frame("2025-01-01", "2025-02-01", "2025-03-05", "2025-05-01"), 1)
    folds = [(past["row"].tolist(), rows["row"].tolist()) for past, rows in split.folds(5)]
    assert folds == [([0], [1]), ([0, 1], [2])]


def test_too_few_times_for_a_holdout_say_so() -> None:
    with pytest.raises(TrainingError, match="1 example times are too few for a hold-out of 1"):
        split_by_time(frame("2025-01-01"), 1)
    with pytest.raises(TrainingError, match="no example's outcome was known"):
        split_by_time(frame("2025-01-01", "2025-01-10"), 1)


def test_an_unknown_parameter_names_those_there_are(trained_home: TrainedHome) -> None:
    wrong = trained_home.settings.model_copy(update={"model_parameters": {"depth": 3}})
    with pytest.raises(TrainingError, match=r"parameters depth: model\.py has learning"):
        train(wrong)


def test_a_trained_model_is_complete(trained_home: TrainedHome) -> None:
    folder, bundle = trained_home.model.folder, trained_home.model.bundle
    assert read_bundle(folder / "bundle") == bundle
    assert {path.name for path in (folder / "reports").iterdir()} == {
        "calibration.png",
        "confusion_matrix.png",
        "feature_importance.csv",
        "feature_importance.png",
        "roc.png",
    }
    metadata = bundle.metadata
    assert metadata.parameters == model.PARAMETERS
    assert metadata.as_of == trained_home.settings.as_of
    assert metadata.onnx_difference < 1e-5
    assert metadata.run is not None
    assert metadata.run.id == folder.name


def test_the_model_beats_the_baseline_beyond_doubt(trained_home: TrainedHome) -> None:
    assert trained_home.model.bundle.metadata.gain_over_baseline.low > 0


def test_the_stored_holdout_gives_the_stored_metrics(trained_home: TrainedHome) -> None:
    bundle = trained_home.model.bundle
    holdout = read_holdout(trained_home.model.folder / "evaluation.parquet", bundle.signature)
    own = measure(bundle.signature, holdout.outcomes, holdout.scores[ESTIMATOR])
    assert own == pytest.approx(bundle.metadata.metrics)
    exported = bundle.scorer().scores(bundle.signature.blocks(holdout.features))
    served = measure(bundle.signature, holdout.outcomes, exported)
    assert served == pytest.approx(bundle.metadata.metrics, abs=1e-4)


def test_the_holdout_names_no_customer(trained_home: TrainedHome) -> None:
    table = pd.read_parquet(trained_home.model.folder / "evaluation.parquet")
    assert data.KEY not in table.columns
    assert not table.select_dtypes("object").shape[1]


def test_a_sample_of_the_holdout_keeps_whole_customers(trained_home: TrainedHome) -> None:
    signature = trained_home.model.bundle.signature
    holdout = read_holdout(trained_home.model.folder / "evaluation.parquet", signature)
    sample = holdout.sample(len(holdout) // 4, seed=1)
    assert len(holdout) * 0.2 < len(sample) < len(holdout) * 0.3
    sizes = np.bincount(holdout.clusters)
    assert sorted(np.bincount(sample.clusters)) == [sizes[0]] * (sample.clusters.max() + 1)
    assert holdout.sample(len(holdout), seed=1) is holdout


def test_the_profile_counts_every_holdout_row_and_its_answer(trained_home: TrainedHome) -> None:
    profile = trained_home.model.bundle.profile
    assert set(profile.numbers) == {*(feature.name for feature in data.FEATURES), "confidence"}
    for histogram in profile.numbers.values():
        assert sum(histogram.counts) == profile.rows
        assert list(histogram.edges) == sorted(set(histogram.edges))
        assert len(histogram.counts) == len(histogram.edges) + 1
    assert sum(profile.strings["prediction"].counts.values()) == profile.rows


def test_an_export_that_differs_is_refused(trained_home: TrainedHome) -> None:
    bundle = trained_home.model.bundle
    holdout = read_holdout(trained_home.model.folder / "evaluation.parquet", bundle.signature)
    other = read_bundle(trained_home.noise / "bundle").model
    with pytest.raises(ExportError, match=r"differs from the estimator by \d\.\d"):
        _proven_difference(other, bundle.signature, holdout)


def test_metadata_is_plain_json(trained_home: TrainedHome) -> None:
    text = (trained_home.model.folder / "bundle" / "metadata.json").read_text(encoding="utf-8")
    assert json.loads(text)["signature"]["task"] == model.TASK
    assert str(Path.home()) not in text


def test_candidates_are_the_chosen_parameters_and_others_once_each(settings: Settings) -> None:
    chosen = settings.model_copy(update={"search_budget": 6, "model_parameters": {"max_iter": 30}})
    found = candidates(chosen)
    assert found[0] == {**model.PARAMETERS, "max_iter": 30}
    assert len(found) == 6 == len({json.dumps(one, sort_keys=True) for one in found})
    assert {one["max_iter"] for one in found} == {30}
    assert candidates(chosen) == found
    assert candidates(chosen.model_copy(update={"seed": 8})) != found
