"""The gate before production: a candidate is judged check by check, on rows it has not seen.

Those rows are its hold-out, and the newest labels: examples whose outcome became known only after
the candidate and production were trained. Production answers the same rows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from . import data, features, model
from .bundle import Bundle
from .errors import ProjectError
from .evaluation import (
    LARGEST_ONNX_DIFFERENCE,
    LOWER_IS_BETTER,
    PRIMARY_METRIC,
    EvaluationError,
    Floats,
    calibration,
    metric_intervals,
    onnx_difference,
    paired_gain,
)
from .holdout import BASELINE, ESTIMATOR, Holdout
from .schema import Blocks, Signature
from .segments import compare_segments
from .settings import Settings
from .verdict import HOLDOUT, NEWEST, Check, Measured, Verdict

ROUNDS, CALLS = 5, 200
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Rival:
    """Whom the candidate is held against on some rows, and what it answers there."""

    name: str
    scores: Floats


def judge(
    settings: Settings,
    version: str,
    candidate: Bundle,
    holdout: Holdout,
    production: tuple[str, Bundle] | None,
    new_signature: bool = False,
) -> Verdict:
    """Judge a candidate.

    Args:
        settings: the limits.
        version: the candidate's number.
        candidate: its bundle.
        holdout: the rows that were kept from its training.
        production: the present production version with its bundle, if there is one.
        new_signature: whether the candidate may read or answer other things than production.

    Raises:
        EvaluationError: the hold-out does not suffice, or a limit is set for an unknown metric.
    """
    scores = candidate.scorer().scores(candidate.signature.blocks(holdout.features))
    checks = [
        _schema_check(candidate),
        _onnx_check(candidate, scores, holdout),
        _size_check(settings, candidate),
        *_latency_checks(settings, candidate, holdout),
    ]
    rivals = []
    if production is not None and production[1].signature == candidate.signature:
        rivals.append(_rival(production, holdout))
    elif production is not None:
        checks.append(_signature_check(production[0], new_signature))
    baseline = Rival("the baseline", holdout.scores[BASELINE])
    measured = {HOLDOUT: _measure(settings, candidate, holdout, [*rivals, baseline])}
    checks += _row_checks(settings, candidate.signature, HOLDOUT, measured[HOLDOUT])
    newest = _measured_newest(settings, candidate, production)
    if isinstance(newest, Measured):
        measured[NEWEST] = newest
        checks += _row_checks(settings, candidate.signature, NEWEST, newest)
    else:
        checks.append(Check(name="not judged", passed=True, figure=newest, limit="", rows=NEWEST))
    return Verdict(
        version=version,
        production=production[0] if production else None,
        judged_at=datetime.now(timezone.utc),
        checks=tuple(checks),
        measured=measured,
    )


def _rival(production: tuple[str, Bundle], rows: Holdout) -> Rival:
    version, bundle = production
    scores = bundle.scorer().scores(bundle.signature.blocks(rows.features))
    return Rival(f"production (version {version})", scores)


def _newest_labels(
    settings: Settings, candidate: Bundle, production: tuple[str, Bundle] | None
) -> Holdout | str:
    """The examples that neither model can have been trained on, or in words why there are none."""
    signature = candidate.signature
    if not _as_declared(signature):
        return "not looked for: the schema differs"
    since = max(bundle.metadata.as_of for bundle in (candidate, *(production or ())[1:]))
    try:
        labels = features.examples(settings, after=since - data.HORIZON)
        if not labels.num_rows:
            return f"none since {since:%Y-%m-%d}: the hold-out is the newest there is"
        frame = features.training_frame(settings, labels)
    except ProjectError as error:
        return f"no feature table here ({error})"
    _, clusters = np.unique(frame[data.KEY].cat.codes.to_numpy(), return_inverse=True)
    rows = Holdout(
        features=frame[list(signature.names)],
        outcomes=frame[data.LABEL].to_numpy(),
        clusters=clusters.astype(np.int64),
        scores={},
    )
    return rows.sample(settings.evaluation_rows, settings.seed)


def _measured_newest(
    settings: Settings, candidate: Bundle, production: tuple[str, Bundle] | None
) -> Measured | str:
    rows = _newest_labels(settings, candidate, production)
    if isinstance(rows, str):
        return rows
    rivals = []
    if production is not None and production[1].signature == candidate.signature:
        rivals.append(_rival(production, rows))
    if len(rows) < settings.segment_rows:
        return f"{len(rows):,} are too few to judge on (ML_SEGMENT_ROWS={settings.segment_rows})"
    try:
        return _measure(settings, candidate, rows, rivals)
    except EvaluationError as error:
        return f"{len(rows):,} do not suffice: {error}"


def _measure(settings: Settings, candidate: Bundle, rows: Holdout, rivals: list[Rival]) -> Measured:
    """Measure the candidate; its segments are held against the first rival."""
    signature, outcomes, clusters = candidate.signature, rows.outcomes, rows.clusters
    scores = candidate.scorer().scores(signature.blocks(rows.features))
    sampling = (clusters, settings.bootstrap_resamples, settings.seed)
    error, by_chance = calibration(signature, outcomes, scores, settings.seed)
    return Measured(
        rows=len(rows),
        metrics=metric_intervals(signature, outcomes, scores, *sampling),
        calibration_error=error,
        calibration_error_by_chance=by_chance,
        gains={
            rival.name: paired_gain(signature, outcomes, scores, rival.scores, *sampling)
            for rival in rivals
        },
        segments=tuple(
            compare_segments(signature, rows, scores, rivals[0].scores, settings.segment_rows)
            if rivals
            else ()
        ),
    )


def _schema_check(candidate: Bundle) -> Check:
    signature = candidate.signature
    return Check(
        name="schema",
        passed=_as_declared(signature),
        figure=f"{signature.task}, {len(signature.features)} features",
        limit="as data.py and model.py declare",
    )


def _as_declared(signature: Signature) -> bool:
    inputs = [(feature.name, feature.type) for feature in signature.features]
    declared = [(feature.name, feature.type) for feature in data.FEATURES]
    return inputs == declared and (signature.task, signature.label) == (model.TASK, data.LABEL)


def _onnx_check(candidate: Bundle, scores: Floats, holdout: Holdout) -> Check:
    difference = onnx_difference(candidate.signature, scores, holdout.scores[ESTIMATOR])
    return Check(
        name="ONNX agreement",
        passed=difference <= LARGEST_ONNX_DIFFERENCE,
        figure=f"{difference:.1e}",
        limit=f"at most {LARGEST_ONNX_DIFFERENCE:.0e}",
        rows=HOLDOUT,
    )


def _size_check(settings: Settings, candidate: Bundle) -> Check:
    size = len(candidate.model) / MEGABYTE
    limit = settings.largest_model_megabytes
    return Check(
        name="size", passed=size <= limit, figure=f"{size:.2f} MB", limit=f"at most {limit:g} MB"
    )


def _latency_checks(settings: Settings, candidate: Bundle, holdout: Holdout) -> list[Check]:
    """Time the exported model as the server runs it; of several rounds the best counts.

    What other programs take of the machine is not the model's.
    """
    scorer, signature = candidate.scorer(), candidate.signature
    positions = np.arange(settings.max_batch_rows) % len(holdout)
    batch = signature.blocks(holdout.features.iloc[positions])
    single = [{name: block[[i]] for name, block in batch.items()} for i in positions[:CALLS]]

    def milliseconds(blocks: Blocks) -> float:
        begun = time.perf_counter()
        scorer.scores(blocks)
        return (time.perf_counter() - begun) * 1_000

    tail = min(np.quantile([milliseconds(row) for row in single], 0.99) for _ in range(ROUNDS))
    whole = min(milliseconds(batch) for _ in range(ROUNDS))
    return [
        Check(name=name, passed=took <= limit, figure=f"{took:.2f} ms", limit=f"at most {limit:g}")
        for name, took, limit in (
            ("latency of a row, p99", float(tail), settings.row_milliseconds),
            (f"latency of {len(positions):,} rows", whole, settings.batch_milliseconds),
        )
    ]


def _signature_check(production: str, new_signature: bool) -> Check:
    return Check(
        name=f"against production (version {production})",
        passed=new_signature,
        figure="reads or answers other things: cannot be compared",
        limit="accepted by --new-signature"
        if new_signature
        else "the same signature; --new-signature accepts another one once its clients are ready",
    )


def _row_checks(
    settings: Settings, signature: Signature, rows: str, measured: Measured
) -> list[Check]:
    metric = PRIMARY_METRIC[signature.task]
    checks = [
        Check(
            name=f"against {rival}",
            passed=gain.low >= -settings.allowed_regression,
            figure=f"{metric} {measured.metrics[metric].estimate:.4f}, gain {gain}",
            limit=f"lower end at least {-settings.allowed_regression:+.4f}",
            rows=rows,
        )
        for rival, gain in measured.gains.items()
    ]
    checks += _limit_checks(settings, rows, measured)
    checks.append(_calibration_check(settings, rows, measured))
    checks.append(_segment_check(settings, rows, measured))
    return checks


def _limit_checks(settings: Settings, rows: str, measured: Measured) -> list[Check]:
    if unknown := sorted(settings.metric_limits.keys() - measured.metrics.keys()):
        raise EvaluationError(
            f"ML_METRIC_LIMITS names {', '.join(unknown)}: this task has "
            f"{', '.join(measured.metrics)}"
        )
    checks = []
    for metric, limit in settings.metric_limits.items():
        interval = measured.metrics[metric]
        lower = metric in LOWER_IS_BETTER
        checks.append(
            Check(
                name=metric,
                passed=interval.high <= limit if lower else interval.low >= limit,
                figure=f"{interval.estimate:.4f} [{interval.low:.4f}, {interval.high:.4f}]",
                limit=f"upper end at most {limit:g}" if lower else f"lower end at least {limit:g}",
                rows=rows,
            )
        )
    return checks


def _calibration_check(settings: Settings, rows: str, measured: Measured) -> Check:
    error, by_chance = measured.calibration_error, measured.calibration_error_by_chance
    limit = settings.allowed_calibration_error
    return Check(
        name="calibration",
        passed=error <= max(limit, by_chance),
        figure=f"error {error:.4f}",
        limit=f"at most {limit:g}, or what chance explains: {by_chance:.4f}",
        rows=rows,
    )


def _segment_check(settings: Settings, rows: str, measured: Measured) -> Check:
    limit = settings.allowed_segment_harm
    figure = f"none has {settings.segment_rows} rows"
    if measured.segments:
        figure = f"worst of {len(measured.segments)}: {measured.segments[0]}"
    return Check(
        name="segments",
        passed=all(segment.harm_at_least <= limit for segment in measured.segments),
        figure=figure if measured.gains else "nothing to compare with",
        limit=f"loss at most {limit:+.4f} larger",
        rows=rows,
    )
