from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from <<cookiecutter.package_name>>.bundle import Bundle, read_bundle
from <<cookiecutter.package_name>>.evaluation import EvaluationError
from <<cookiecutter.package_name>>.gate import judge
from <<cookiecutter.package_name>>.holdout import Holdout, read_holdout
from <<cookiecutter.package_name>>.verdict import HOLDOUT, NEWEST, Verdict

from .homes import TrainedHome
from .trained import SIGNATURES, write_trained_model


def trained_earlier(bundle: Bundle, days: int) -> Bundle:
    """The same model as if it had been trained so many days before."""
    as_of = bundle.metadata.as_of - timedelta(days=days)
    return bundle.model_copy(
        update={"metadata": bundle.metadata.model_copy(update={"as_of": as_of})}
    )


def parts(home: TrainedHome) -> tuple[Bundle, Holdout]:
    bundle = home.model.bundle
    return bundle, read_holdout(home.model.folder / "evaluation.parquet", bundle.signature)


def named(verdict: Verdict, rows: str) -> list[str]:
    return [check.name for check in verdict.checks if check.rows == rows]


def test_labels_that_became_known_later_judge_both_models(trained_home: TrainedHome) -> None:
    bundle, holdout = parts(trained_home)
    noise = read_bundle(trained_home.noise / "bundle")
    candidate = trained_earlier(noise, 40)
    settings = trained_home.settings
    verdict = judge(settings, "2", candidate, holdout, ("1", trained_earlier(bundle, 40)))
    assert named(verdict, NEWEST) == ["against production (version 1)", "calibration", "segments"]
    assert verdict.measured[NEWEST].rows == 2_000
    assert "against production (version 1)" in verdict.failed
    assert verdict.measured[NEWEST].gains["production (version 1)"].high < 0


def test_rows_that_production_was_trained_on_do_not_judge_it(trained_home: TrainedHome) -> None:
    bundle, holdout = parts(trained_home)
    older = trained_earlier(bundle, 40)
    verdict = judge(trained_home.settings, "2", older, holdout, ("1", bundle))
    (check,) = [check for check in verdict.checks if check.rows == NEWEST]
    assert (check.name, check.passed) == ("not judged", True)
    assert "the hold-out is the newest there is" in check.figure


def test_limits_of_metrics_are_held_against_the_interval(trained_home: TrainedHome) -> None:
    bundle, holdout = parts(trained_home)
    interval = judge(trained_home.settings, "1", bundle, holdout, None).measured[HOLDOUT].metrics
    low, high = interval["roc_auc"].low, interval["log_loss"].high
    for limits, failed in (
        ({"roc_auc": low - 0.001, "log_loss": high + 0.001}, []),
        ({"roc_auc": low + 0.001, "log_loss": high - 0.001}, ["roc_auc", "log_loss"]),
    ):
        settings = trained_home.settings.model_copy(update={"metric_limits": limits})
        assert judge(settings, "1", bundle, holdout, None).failed == failed
    settings = trained_home.settings.model_copy(update={"metric_limits": {"rmse": 1}})
    with pytest.raises(EvaluationError, match="ML_METRIC_LIMITS names rmse: this task has acc"):
        judge(settings, "1", bundle, holdout, None)


def test_a_model_that_is_too_slow_or_too_large_fails(trained_home: TrainedHome) -> None:
    bundle, holdout = parts(trained_home)
    tight = {"row_milliseconds": 1e-4, "batch_milliseconds": 1e-4, "largest_model_megabytes": 1e-4}
    settings = trained_home.settings.model_copy(update=tight)
    assert judge(settings, "1", bundle, holdout, None).failed == [
        "size", "latency of a row, p99", "latency of 1,000 rows",
    ]  # fmt: skip


@pytest.mark.parametrize("case", SIGNATURES)
def test_every_task_is_judged(case: str, tmp_path: Path, trained_home: TrainedHome) -> None:
    trained = write_trained_model(tmp_path / "model", case)
    holdout = read_holdout(trained.folder / "evaluation.parquet", trained.bundle.signature)
    settings = trained_home.settings.model_copy(update={"segment_rows": 20})
    verdict = judge(settings, "2", trained.bundle, holdout, ("1", trained.bundle))
    assert set(verdict.failed) <= {"schema", "calibration"}
    assert "schema" in verdict.failed
    measured = verdict.measured[HOLDOUT]
    assert measured.gains["production (version 1)"].high == 0
    assert measured.segments
    assert all(np.isfinite([m.low, m.high]).all() for m in measured.metrics.values())
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
