"""Training, step by step: split by time, fit, evaluate, explain, export and log.

``train`` takes the steps in one process; the pipeline takes the same ones in several.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import data, features, lineage, model
from .bundle import Bundle, Metadata, Scorer, write_bundle
from .console import track
from .errors import ProjectError
from .evaluation import (
    LARGEST_ONNX_DIFFERENCE,
    PRIMARY_METRIC,
    Outcomes,
    measure,
    onnx_difference,
    paired_gain,
)
from .export import ExportError, estimator_scores, to_onnx
from .holdout import BASELINE, ESTIMATOR, Holdout
from .profiling import profile
from .schema import Signature
from .settings import Settings
from .tracking import Run, TrainingData, start_run
from .trained_model import BUNDLE_FOLDER, EVALUATION_FILE, MODEL_URI_FILE, REPORTS_FOLDER

EXAMPLE_ROWS = 5
SAMPLE_ROWS = 1_000
DRAWS_PER_CANDIDATE = 20


class TrainingError(ProjectError):
    """The data or the parameters do not allow a training run."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained model's folder: bundle, hold-out rows and reports."""

    folder: Path
    bundle: Bundle


@dataclass(frozen=True)
class Split:
    """Rows in time: every development row's outcome was known before the hold-out begins."""

    development: pd.DataFrame
    holdout: pd.DataFrame

    def folds(self, count: int) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
        """(past, rows) of up to ``count`` of the newest development times, oldest first."""
        rows = self.development
        pairs = []
        for at in _times(rows)[-count:]:
            past = rows[rows[features.TIMESTAMP] + data.HORIZON <= at]
            if len(past):
                pairs.append((past, rows[rows[features.TIMESTAMP] == at]))
        return pairs


@dataclass(frozen=True)
class Plan:
    """All that is fixed before a model is fitted."""

    settings: Settings
    parameters: dict[str, Any]
    signature: Signature
    split: Split
    fingerprint: str
    commit: str | None


def train(settings: Settings) -> TrainedModel:
    """Train, evaluate and log one model.

    Raises:
        DataError: there is no usable data.
        TrainingError: the data or the parameters do not allow it.
        ExportError: the model cannot be served as it was trained.
    """
    parameters = chosen_parameters(settings)
    features.build(settings)
    plan = make_plan(settings, parameters, features.training_frame(settings))
    with start_run(settings, f"train-{settings.as_of:%Y%m%d}") as run:
        _log_plan(run, plan)
        _log_folds(run, measure_folds(plan))
        return _fit_and_log(run, plan, settings.models_dir / run.reference.id)


def candidates(settings: Settings) -> list[dict[str, Any]]:
    """The parameters that a search tries: the chosen ones, then others, drawn by the seed.

    What the settings fix stays fixed in every candidate.
    """
    chosen = chosen_parameters(settings)
    space = {
        name: values
        for name, values in getattr(model, "SEARCH_SPACE", {}).items()
        if name not in settings.model_parameters
    }
    random, found = np.random.default_rng(settings.seed), [chosen]
    for _ in range(settings.search_budget * DRAWS_PER_CANDIDATE):
        drawn = {name: values[random.integers(len(values))] for name, values in space.items()}
        if len(found) < settings.search_budget and {**chosen, **drawn} not in found:
            found.append({**chosen, **drawn})
    return found


def try_candidate(
    settings: Settings, parameters: dict[str, Any], frame: pd.DataFrame
) -> list[dict[str, float]]:
    """A candidate's metrics on each fold; the hold-out is not looked at."""
    return measure_folds(make_plan(settings, parameters, frame))


def score(folds: list[dict[str, float]]) -> float:
    """By which candidates are compared: the mean of the primary metric over the folds.

    Without a fold (too short a history) every candidate scores 0 and the first one wins.
    """
    return (
        0.0
        if not folds
        else float(np.mean([metrics[PRIMARY_METRIC[model.TASK]] for metrics in folds]))
    )


def train_best(
    settings: Settings, tried: list[dict[str, Any]], frame: pd.DataFrame, folder: Path
) -> TrainedModel:
    """Fit the best candidate on all development rows, judge it on the hold-out and log it.

    Args:
        settings: as for ``train``.
        tried: ``parameters`` and ``folds`` of each candidate.
        frame: the training frame.
        folder: where the trained model goes.
    """
    scores = [score(candidate["folds"]) for candidate in tried]
    best = tried[int(np.argmax(scores))]
    plan = make_plan(settings, best["parameters"], frame)
    with start_run(settings, f"pipeline-{settings.as_of:%Y%m%d}") as run:
        _log_plan(run, plan)
        _log_folds(run, best["folds"])
        for number, value in enumerate(scores, start=1):
            run.log_metrics({"candidate_score": value}, step=number)
        return _fit_and_log(run, plan, folder)


def split_by_time(
    frame: pd.DataFrame, holdout_times: int, training_times: int | None = None
) -> Split:
    """Keep the newest example times for the hold-out, and the newest before it, or all, to train.

    Raises:
        TrainingError: there are too few times, or no outcome was known before the hold-out.
    """
    times = _times(frame)
    if len(times) < holdout_times + 1:
        raise TrainingError(
            f"{len(times)} example times are too few for a hold-out of {holdout_times}: add older "
            "data or lower ML_HOLDOUT_TIMES"
        )
    first = times[-holdout_times]
    known = frame[features.TIMESTAMP] + data.HORIZON <= first
    if not known.any():
        raise TrainingError(
            f"no example's outcome was known before the hold-out begins at {first}: the example "
            f"times must reach back more than the horizon of {data.HORIZON} (data.py)"
        )
    development = frame[known]
    if training_times is not None:
        oldest = _times(development)[-training_times:][0]
        development = development[development[features.TIMESTAMP] >= oldest]
    return Split(development, frame[frame[features.TIMESTAMP] >= first])


def chosen_parameters(settings: Settings) -> dict[str, Any]:
    """``model.PARAMETERS`` with the settings' on top.

    Raises:
        TrainingError: the settings name a parameter that model.py does not have.
    """
    if unknown := sorted(set(settings.model_parameters) - set(model.PARAMETERS)):
        raise TrainingError(
            f"unknown hyper-parameters {', '.join(unknown)}: model.py has "
            f"{', '.join(model.PARAMETERS) or 'none'}"
        )
    return {**model.PARAMETERS, **settings.model_parameters}


def make_plan(settings: Settings, parameters: dict[str, Any], frame: pd.DataFrame) -> Plan:
    """Fix what a training run needs to know before it fits.

    Raises:
        TrainingError: an example has no label, or there are too few times for a hold-out.
    """
    outcomes = frame[data.LABEL]
    if outcomes.isna().any():
        raise TrainingError(
            f"{int(outcomes.isna().sum()):,} examples have no {data.LABEL}: labels_at() in data.py "
            "must leave them out"
        )
    classes = () if model.TASK == "regression" else tuple(sorted(outcomes.unique().tolist()))
    return Plan(
        settings=settings,
        parameters=parameters,
        signature=Signature(
            task=model.TASK, label=data.LABEL, features=data.FEATURES, classes=classes
        ),
        split=split_by_time(frame, settings.holdout_times, settings.training_times),
        fingerprint=lineage.fingerprint(frame),
        commit=lineage.git_commit(),
    )


def _log_plan(run: Run, plan: Plan) -> None:
    development = plan.split.development
    run.log_parameters(
        {
            **plan.parameters,
            "seed": plan.settings.seed,
            "rows_development": len(development),
            "rows_holdout": len(plan.split.holdout),
        }
    )
    run.log_tags(
        {
            "as_of": plan.settings.as_of.isoformat(),
            "task": plan.signature.task,
            "data_fingerprint": plan.fingerprint,
            "git_commit": plan.commit or "unknown",
        }
    )
    run.log_training_data(
        TrainingData(
            sample=development.drop(columns=data.KEY).head(SAMPLE_ROWS),
            rows=len(development),
            label=data.LABEL,
            source=str(plan.settings.data_dir),
            fingerprint=plan.fingerprint,
        )
    )


def measure_folds(plan: Plan) -> list[dict[str, float]]:
    """Measure the same estimator on earlier times, each fitted on that time's past alone.

    Raises:
        TrainingError: there is no earlier time, or the estimator refuses to fit.
    """
    measured = []
    for past, rows in track(plan.split.folds(plan.settings.folds), "validating in time"):
        fitted = _fit(model.estimator(plan.parameters, plan.settings.seed), plan.signature, past)
        scores = estimator_scores(fitted, plan.signature, rows)
        measured.append(measure(plan.signature, _outcomes(rows), scores))
    return measured


def _log_folds(run: Run, folds: list[dict[str, float]]) -> None:
    for step, metrics in enumerate(folds, start=1):
        run.log_metrics({f"fold_{name}": value for name, value in metrics.items()}, step=step)


def _fit_and_log(run: Run, plan: Plan, folder: Path) -> TrainedModel:
    from .reports import write_reports

    settings, signature, development = plan.settings, plan.signature, plan.split.development
    fitted = _fit(model.estimator(plan.parameters, settings.seed), signature, development)
    baseline = _fit(model.baseline(settings.seed), signature, development)
    onnx = to_onnx(fitted, signature)
    holdout = _judged_holdout(plan, fitted, baseline)
    difference = _proven_difference(onnx, signature, holdout)
    metrics = measure(signature, holdout.outcomes, holdout.scores[ESTIMATOR])
    baseline_metrics = measure(signature, holdout.outcomes, holdout.scores[BASELINE])
    stored = holdout.sample(settings.evaluation_rows, settings.seed)
    gain = paired_gain(
        signature,
        stored.outcomes,
        stored.scores[ESTIMATOR],
        stored.scores[BASELINE],
        stored.clusters,
        settings.bootstrap_resamples,
        settings.seed,
    )
    bundle = Bundle(
        model=onnx,
        metadata=Metadata(
            model_name=settings.model_name,
            signature=signature,
            key=data.KEY,
            feature_ttl=data.TTL,
            created_at=datetime.now(timezone.utc),
            as_of=settings.as_of,
            estimator=type(fitted).__name__,
            parameters=plan.parameters,
            primary_metric=PRIMARY_METRIC[signature.task],
            metrics=metrics,
            baseline_metrics=baseline_metrics,
            gain_over_baseline=gain,
            onnx_difference=difference,
            data_fingerprint=plan.fingerprint,
            git_commit=plan.commit,
            run=run.reference,
            packages=lineage.package_versions(),
            training_rows=len(development),
        ),
        profile=profile(signature, holdout.features, holdout.scores[ESTIMATOR]),
    )
    write_bundle(folder / BUNDLE_FOLDER, bundle)
    stored.write(folder / EVALUATION_FILE)
    write_reports(folder / REPORTS_FOLDER, signature, fitted, holdout, settings.seed)
    run.log_metrics(bundle.metadata.summary())
    run.log_reports(folder / REPORTS_FOLDER)
    if uri := run.log_model(folder, development[list(signature.names)].head(EXAMPLE_ROWS)):
        (folder / MODEL_URI_FILE).write_text(uri, encoding="utf-8")
    return TrainedModel(folder, bundle)


def _fit(estimator: Any, signature: Signature, rows: pd.DataFrame) -> Any:
    try:
        return estimator.fit(rows[list(signature.names)], _outcomes(rows))
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{type(estimator).__name__} refuses to fit: {error}") from error


def _outcomes(rows: pd.DataFrame) -> Outcomes:
    return rows[data.LABEL].to_numpy()


def _judged_holdout(plan: Plan, fitted: Any, baseline: Any) -> Holdout:
    rows = plan.split.holdout
    _, clusters = np.unique(rows[data.KEY].cat.codes.to_numpy(), return_inverse=True)
    return Holdout(
        features=rows[list(plan.signature.names)],
        outcomes=_outcomes(rows),
        clusters=clusters.astype(np.int64),
        scores={
            ESTIMATOR: estimator_scores(fitted, plan.signature, rows),
            BASELINE: estimator_scores(baseline, plan.signature, rows),
        },
    )


def _proven_difference(onnx: bytes, signature: Signature, holdout: Holdout) -> float:
    exported = Scorer(onnx, signature).scores(signature.blocks(holdout.features))
    difference = onnx_difference(signature, exported, holdout.scores[ESTIMATOR])
    if difference > LARGEST_ONNX_DIFFERENCE:
        raise ExportError(
            f"the ONNX export differs from the estimator by {difference:.2e} on the hold-out, more "
            f"than {LARGEST_ONNX_DIFFERENCE:.0e}: it would not answer as it was evaluated. Trees "
            "on scaled inputs do that, since a rounding moves rows across a split"
        )
    return difference


def _times(frame: pd.DataFrame) -> list[pd.Timestamp]:
    return sorted(frame[features.TIMESTAMP].unique())
