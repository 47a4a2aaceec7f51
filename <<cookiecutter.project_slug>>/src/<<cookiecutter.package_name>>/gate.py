"""The gate before production: a candidate is judged on its hold-out, check by check."""

from __future__ import annotations

from datetime import datetime, timezone

from pydantic import BaseModel, ConfigDict

from . import data, model
from .bundle import Bundle
from .evaluation import (
    LARGEST_ONNX_DIFFERENCE,
    PRIMARY_METRIC,
    Floats,
    onnx_difference,
    paired_gain,
    primary_metric,
)
from .holdout import BASELINE, ESTIMATOR, Holdout
from .settings import Settings


class Check(BaseModel):
    """One question of the gate, with its figure and its limit in words."""

    model_config = ConfigDict(frozen=True)

    name: str
    passed: bool
    figure: str
    limit: str


class Verdict(BaseModel):
    """The gate's answer for one version, against one version of production."""

    model_config = ConfigDict(frozen=True)

    version: str
    production: str | None
    judged_at: datetime
    rows: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


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
        settings: the allowed regression and the interval's resamples.
        version: the candidate's number.
        candidate: its bundle.
        holdout: the rows that were kept from its training.
        production: the present production version with its bundle, if there is one.
        new_signature: whether the candidate may read or answer other things than production.
    """
    scores = candidate.scorer().scores(candidate.signature.blocks(holdout.features))
    checks = [_schema_check(candidate), _onnx_check(candidate, scores, holdout)]
    checks.append(
        _gain_check(settings, candidate, holdout, scores, "the baseline", holdout.scores[BASELINE])
    )
    if production is not None:
        checks.append(
            _production_check(settings, candidate, holdout, scores, production, new_signature)
        )
    return Verdict(
        version=version,
        production=production[0] if production else None,
        judged_at=datetime.now(timezone.utc),
        rows=len(holdout),
        checks=tuple(checks),
    )


def _schema_check(candidate: Bundle) -> Check:
    signature = candidate.signature
    inputs = [(feature.name, feature.type) for feature in signature.features]
    declared = [(feature.name, feature.type) for feature in data.FEATURES]
    same = inputs == declared and (signature.task, signature.label) == (model.TASK, data.LABEL)
    return Check(
        name="schema",
        passed=same,
        figure=f"{signature.task}, {len(inputs)} features",
        limit="as data.py and model.py declare",
    )


def _onnx_check(candidate: Bundle, scores: Floats, holdout: Holdout) -> Check:
    difference = onnx_difference(candidate.signature, scores, holdout.scores[ESTIMATOR])
    return Check(
        name="ONNX agreement",
        passed=difference <= LARGEST_ONNX_DIFFERENCE,
        figure=f"{difference:.1e}",
        limit=f"at most {LARGEST_ONNX_DIFFERENCE:.0e}",
    )


def _production_check(
    settings: Settings,
    candidate: Bundle,
    holdout: Holdout,
    scores: Floats,
    production: tuple[str, Bundle],
    new_signature: bool,
) -> Check:
    version, bundle = production
    name = f"production (version {version})"
    if bundle.signature != candidate.signature:
        return Check(
            name=f"against {name}",
            passed=new_signature,
            figure="reads or answers other things: cannot be compared",
            limit="accepted by --new-signature"
            if new_signature
            else "the same signature; "
            "--new-signature accepts another one once its clients are ready",
        )
    other = bundle.scorer().scores(bundle.signature.blocks(holdout.features))
    return _gain_check(settings, candidate, holdout, scores, name, other)


def _gain_check(
    settings: Settings,
    candidate: Bundle,
    holdout: Holdout,
    scores: Floats,
    name: str,
    other: Floats,
) -> Check:
    gain = paired_gain(
        candidate.signature,
        holdout.outcomes,
        scores,
        other,
        holdout.clusters,
        settings.bootstrap_resamples,
        settings.seed,
    )
    metric = PRIMARY_METRIC[candidate.signature.task]
    reached = primary_metric(candidate.signature, holdout.outcomes, scores)
    return Check(
        name=f"against {name}",
        passed=gain.low >= -settings.allowed_regression,
        figure=f"{metric} {reached:.4f}, gain {gain}",
        limit=f"lower end at least {-settings.allowed_regression:+.4f}",
    )
