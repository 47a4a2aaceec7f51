"""The result of an A/B test, from the prediction log; looking at it at any time is safe.

The unit is the user. A user is exposed by the first row that was answered in the experiment, and
stays in that row's variant whatever a ramp does later. The outcome is the newest feedback to the
user's earliest row, of those in that variant, that has any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ..database import connect, literal
from ..experiment import Experiment, ExperimentError
from ..prediction_log import DAYS_FOLDER, FEEDBACK_FOLDER
from ..schema import Signature, Task
from ..settings import Settings

ALPHA = 0.05
POWER = 0.8
MISMATCH = 0.001
FEWEST = 100  # users with an outcome in each arm before an asymptotic interval means anything
FEWEST_OF_A_KIND = 20  # of these, conversions and others
NO_DECISION, BETTER, WORSE, SAMPLE_RATIO_MISMATCH, NO_DIFFERENCE = 0, 10, 11, 12, 13

Floats = NDArray[np.float64]
Measure = Literal["conversion", "accuracy", "error", "mean"]
MEASURES: dict[Task, Measure] = {
    "binary": "conversion",
    "multiclass": "accuracy",
    "regression": "error",
}
Decision = Literal["better", "worse", "no difference", "undecided"]


class Arm(BaseModel):
    """One variant's users."""

    model_config = ConfigDict(frozen=True)

    name: str
    versions: tuple[str, ...]
    users: int
    expected_users: float
    outcomes: int
    figure: float | None
    latency_p50: float | None
    latency_p95: float | None


class Effect(BaseModel):
    """A treatment's figure minus the control's, with an interval that holds at every look."""

    model_config = ConfigDict(frozen=True)

    variant: str
    users: int
    estimate: float | None
    low: float | None
    high: float | None
    smallest_wanted: float
    power: float | None
    needed_users: int | None
    decision: Decision


class Report(BaseModel):
    """What is known so far; ``exit_code`` says it to a script."""

    model_config = ConfigDict(frozen=True)

    experiment: str
    measure: Measure
    arms: tuple[Arm, ...]
    effects: tuple[Effect, ...]
    sample_ratio_p: float
    outcome_ratio_p: float
    warnings: tuple[str, ...]
    verdict: str
    exit_code: int

    @property
    def winner(self) -> str | None:
        """The treatment that is better by most, where the sample can be trusted."""
        better = [effect for effect in self.effects if effect.decision == "better"]
        if self.exit_code != BETTER or not better:
            return None
        return max(better, key=lambda effect: abs(effect.estimate or 0)).variant


@dataclass(frozen=True)
class Users:
    """Exposed users in the order in which their outcomes became known."""

    arms: NDArray[np.int64]
    probabilities: Floats  # (users, arms): of each variant, when the user came
    values: Floats  # NaN without an outcome


def analyse(
    settings: Settings,
    experiment: Experiment,
    signature: Signature,
    measure: Measure | None = None,
    smallest_wanted: float | None = None,
    picture: Path | None = None,
) -> Report:
    """Read the log and judge.

    Args:
        settings: where the log lies.
        experiment: its variants and the history of their weights.
        signature: the task, and the positive class of a conversion.
        measure: what is compared; by default conversion (binary), accuracy (multiclass) or
            absolute error (regression); ``mean`` is the mean outcome of a regression.
        smallest_wanted: the smallest difference worth finding; by default a tenth of control's.
        picture: where to draw the running effect.

    Raises:
        ExperimentError: the log holds no row of the experiment, or the measure does not fit.
    """
    measure = measure or MEASURES[signature.task]
    users, rows = _read(settings, experiment, _expression(measure, signature))
    arms = _arms(experiment, users, rows)
    wanted = smallest_wanted or abs(arms[0].figure or 0) / 10
    sign = -1 if measure == "error" else 1
    paths = [effect_path(users, arm, experiment.planned_users) for arm in range(1, len(arms))]
    effects = tuple(
        _effect(arm.name, path, wanted, sign, experiment.planned_users, ALPHA / len(paths))
        for arm, path in zip(arms[1:], paths, strict=True)
    )
    known = ~np.isnan(users.values)
    outcome_p = _ratio_p([arm.outcomes for arm in arms], users.probabilities[known].sum(0))
    exposed_p = _ratio_p([arm.users for arm in arms], users.probabilities.sum(0))
    code, verdict = _verdict(effects, exposed_p, measure)
    if picture:
        _draw(picture, experiment, measure, paths)
    return Report(
        experiment=experiment.name,
        measure=measure,
        arms=arms,
        effects=effects,
        sample_ratio_p=exposed_p,
        outcome_ratio_p=outcome_p,
        warnings=tuple(_warnings(arms, outcome_p)),
        verdict=verdict,
        exit_code=code,
    )


@dataclass(frozen=True)
class EffectPath:
    """The running effect after each user with an outcome; empty until there are enough."""

    users: NDArray[np.int64]
    estimate: Floats
    half_width: Floats
    deviation: float


def effect_path(users: Users, arm: int, planned: int) -> EffectPath:
    """The effect of an arm against the control, user by user, with its confidence sequence.

    Each user's score is the doubly robust one with the known probabilities of assignment and the
    arms' means before that user, so weights may change on the way. The interval is the asymptotic
    confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024, Time-uniform
    central limit theory and asymptotic confidence sequences, theorem 2.2), tightest at ``planned``
    users; several treatments share the error (Bonferroni).
    """
    chosen = ~np.isnan(users.values) & (users.probabilities[:, [0, arm]] > 0).all(1)
    arms, values = users.arms[chosen], users.values[chosen]
    scores = np.zeros(len(values))
    enough = np.ones(len(values), bool)
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    for index, sign in ((arm, 1), (0, -1)):
        own = arms == index
        counts, sums = np.cumsum(own), np.cumsum(values * own)
        before = np.concatenate([[0.0], (sums / np.maximum(counts, 1))[:-1]])
        scores += sign * (before + own * (values - before) / users.probabilities[chosen, index])
        enough &= counts >= FEWEST
        if binary:
            enough &= np.minimum(sums, counts - sums) >= FEWEST_OF_A_KIND
    number = np.arange(1, len(values) + 1)
    mean = np.cumsum(scores) / number
    deviation = np.sqrt(np.maximum(np.cumsum(scores**2) / number - mean**2, 0))
    alpha = ALPHA / (users.probabilities.shape[1] - 1)
    half = deviation * radius(number, planned, alpha)
    last = float(deviation[-1]) if len(deviation) else math.nan
    return EffectPath(number[enough], mean[enough], half[enough], last)


def radius(number: Any, planned: int, alpha: float) -> Any:
    """Half the width of the confidence sequence after so many scores of deviation 1."""
    rho = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned
    grown = number * rho + 1
    return np.sqrt(2 * grown / (number**2 * rho) * np.log(np.sqrt(grown) / alpha))


def power(number: int, wanted: float, deviation: float, planned: int, alpha: float) -> float:
    """The least chance to have found a difference after so many users."""
    error = deviation / math.sqrt(number)
    found = (wanted - deviation * float(radius(number, planned, alpha))) / error
    return 0.5 * math.erfc(-found / math.sqrt(2))


def needed_users(wanted: float, deviation: float, planned: int, alpha: float) -> int | None:
    """Users of all arms, with an outcome, that find the wanted difference with POWER."""
    high = 1
    while power(high, wanted, deviation, planned, alpha) < POWER:
        high *= 2
        if high > 10**12:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if power(middle, wanted, deviation, planned, alpha) < POWER:
            low = middle
        else:
            high = middle
    return high


def chi_square_p(statistic: float, degrees: int) -> float:
    """The chance of a larger chi-square (Abramowitz and Stegun 26.4.4 and 26.4.5)."""
    if degrees % 2:
        total = math.erfc(math.sqrt(statistic / 2))
        term = math.sqrt(2 * statistic / math.pi) * math.exp(-statistic / 2)
        for k in range(1, degrees, 2):
            total += term
            term *= statistic / (k + 2)
        return total
    term = total = math.exp(-statistic / 2)
    for k in range(2, degrees, 2):
        term *= statistic / k
        total += term
    return total


def _ratio_p(counts: list[int], expected: Floats) -> float:
    used = expected > 0
    if used.sum() < 2:
        return 1.0
    observed = np.array(counts)[used]
    statistic = float(((observed - expected[used]) ** 2 / expected[used]).sum())
    return chi_square_p(statistic, int(used.sum()) - 1)


def _expression(measure: Measure, signature: Signature) -> str:
    if (measure in ("conversion", "accuracy")) == (signature.task == "regression") or (
        measure == "conversion" and signature.task != "binary"
    ):
        raise ExperimentError(f"{measure!r} does not fit a {signature.task} task")
    # A Parquet file of whole numbers holds floats where some rows are empty.
    kind = "BIGINT" if signature.classes and isinstance(signature.classes[0], int) else "VARCHAR"
    if measure == "conversion":
        positive = literal(signature.classes[1])
        return f"(TRY_CAST(f.outcome AS {kind}) = {positive}::{kind})::DOUBLE"
    if measure == "accuracy":
        return f"(TRY_CAST(f.outcome AS {kind}) = TRY_CAST(r.prediction AS {kind}))::DOUBLE"
    outcome = "TRY_CAST(f.outcome AS DOUBLE)"
    return outcome if measure == "mean" else f"abs({outcome} - TRY_CAST(r.prediction AS DOUBLE))"


def _read(
    settings: Settings, experiment: Experiment, expression: str
) -> tuple[Users, dict[str, dict[str, Any]]]:
    folder = settings.prediction_log_dir
    if not any(folder.glob(f"{DAYS_FOLDER}/*/*.parquet")):
        raise ExperimentError(f"{folder} holds no compacted row: run `log compact` first")
    days = literal(folder / DAYS_FOLDER / "*" / "*.parquet")
    came = """SELECT NULL::VARCHAR AS request_id, NULL::VARCHAR AS outcome,
        NULL::TIMESTAMP AS "at" WHERE false"""
    if any(folder.glob(f"{FEEDBACK_FOLDER}/*/*.parquet")):
        files = literal(folder / FEEDBACK_FOLDER / "*" / "*.parquet")
        came = f"""SELECT request_id, arg_max(outcome, "at") AS outcome, min("at") AS "at"
            FROM read_parquet({files}, union_by_name = true) GROUP BY request_id"""
    names = list(experiment.weights)
    listed = ", ".join(map(literal, names))
    with connect(settings) as db:
        db.execute(f"""CREATE TEMP TABLE answered AS
            SELECT request_id, "at", user_id, variant, model_version, latency_seconds, prediction
            FROM read_parquet({days}, union_by_name = true)
            WHERE experiment = {literal(experiment.name)} AND NOT shadow AND user_id IS NOT NULL
            AND variant IN ({listed})""")
        query = f"""
            WITH exposed AS (
                SELECT user_id, arg_min(variant, ("at", request_id)) AS variant, min("at") AS "at"
                FROM answered GROUP BY user_id),
            feedback AS ({came}),
            known AS (
                SELECT user_id, arg_min({expression}, (r."at", r.request_id)) AS value,
                    arg_min(f."at", (r."at", r.request_id)) AS known_at
                FROM answered r JOIN exposed e USING (user_id) JOIN feedback f USING (request_id)
                WHERE r.variant = e.variant AND {expression} IS NOT NULL GROUP BY user_id)
            SELECT list_position([{listed}], variant) - 1 AS arm, epoch_us("at") AS "at",
                coalesce(value, 'nan'::DOUBLE) AS value
            FROM exposed LEFT JOIN known USING (user_id) ORDER BY known_at, "at", user_id"""
        table = db.execute(query).fetchnumpy()
        rows = db.execute("""SELECT variant, list_sort(list_distinct(list(model_version))),
            quantile_cont(latency_seconds, 0.5), quantile_cont(latency_seconds, 0.95)
            FROM answered GROUP BY variant""").fetchall()
    if not len(table["arm"]):
        raise ExperimentError(
            f"the log holds no user of {experiment.name} yet: send requests with a user_id, then "
            "`log compact`"
        )
    arms = np.asarray(table["arm"], np.int64)
    users = Users(arms, _probabilities(experiment, table["at"]), np.asarray(table["value"], float))
    facts = {name: {"versions": seen, "p50": p50, "p95": p95} for name, seen, p50, p95 in rows}
    return users, facts


def _probabilities(experiment: Experiment, at: Any) -> Floats:
    """Each variant's weight at each user's exposure."""
    history = [allocation.weights for allocation in experiment.history] or [experiment.weights]
    since = [np.datetime64(allocation.since, "us").astype(int) for allocation in experiment.history]
    weights = np.array([[float(w[name]) for name in experiment.weights] for w in history])
    index = np.searchsorted(np.array(since[1:], np.int64), np.asarray(at, np.int64), side="right")
    probabilities: Floats = weights[index]
    return probabilities


def _arms(experiment: Experiment, users: Users, rows: dict[str, dict[str, Any]]) -> tuple[Arm, ...]:
    arms = []
    for index, name in enumerate(experiment.weights):
        own = users.values[users.arms == index]
        known = own[~np.isnan(own)]
        facts = rows.get(name, {})
        arms.append(
            Arm(
                name=name,
                versions=tuple(facts.get("versions", ())),
                users=len(own),
                expected_users=float(users.probabilities[:, index].sum()),
                outcomes=len(known),
                figure=float(known.mean()) if len(known) else None,
                latency_p50=facts.get("p50"),
                latency_p95=facts.get("p95"),
            )
        )
    return tuple(arms)


def _effect(
    name: str, path: EffectPath, wanted: float, sign: int, planned: int, alpha: float
) -> Effect:
    if not len(path.users):
        return Effect(
            variant=name, users=0, estimate=None, low=None, high=None, smallest_wanted=wanted,
            power=None, needed_users=None, decision="undecided",
        )  # fmt: skip
    estimate, half = float(path.estimate[-1]), float(path.half_width[-1])
    low, high = estimate - half, estimate + half
    decision: Decision = "undecided"
    if low > 0 or high < 0:
        decision = "better" if estimate * sign > 0 else "worse"
    elif max(-low, high) < wanted:
        decision = "no difference"
    number = int(path.users[-1])
    measurable = wanted > 0 and path.deviation > 0
    return Effect(
        variant=name,
        users=number,
        estimate=estimate,
        low=low,
        high=high,
        smallest_wanted=wanted,
        power=power(number, wanted, path.deviation, planned, alpha) if measurable else None,
        needed_users=needed_users(wanted, path.deviation, planned, alpha) if measurable else None,
        decision=decision,
    )


def _verdict(effects: tuple[Effect, ...], p: float, measure: str) -> tuple[int, str]:
    if p < MISMATCH:
        return SAMPLE_RATIO_MISMATCH, (
            f"sample ratio mismatch (p = {p:.1e}): the users are not split as the weights say, so "
            "no effect can be trusted; look for requests that are lost or logged on one side only"
        )
    decisions = [effect.decision for effect in effects]
    if "better" in decisions:
        names = ", ".join(effect.variant for effect in effects if effect.decision == "better")
        return BETTER, f"{names} is better in {measure}: `experiment promote` makes it production"
    if decisions and all(decision == "worse" for decision in decisions):
        return WORSE, f"every treatment is worse in {measure}: `experiment stop` ends it"
    if decisions and "undecided" not in decisions:
        return NO_DIFFERENCE, f"no treatment is better in {measure} by what would be worth finding"
    needed = [effect.needed_users for effect in effects if effect.needed_users]
    more = f"; about {max(needed):,} users with an outcome are needed" if needed else ""
    return NO_DECISION, f"no decision yet{more}"


def _warnings(arms: tuple[Arm, ...], outcome_p: float) -> list[str]:
    found = [
        f"{arm.name} was answered by several versions ({', '.join(arm.versions)})"
        for arm in arms
        if len(arm.versions) > 1
    ]
    if outcome_p < MISMATCH:
        found.append(
            f"feedback comes more often from some variants than from others (p = {outcome_p:.1e}): "
            "send the outcome of every user, not of those who convert alone"
        )
    return found


def _draw(picture: Path, experiment: Experiment, measure: str, paths: list[EffectPath]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for variant, path in zip(experiment.variants[1:], paths, strict=True):
        (line,) = axes.plot(path.users, path.estimate, label=variant.name)
        low, high = path.estimate - path.half_width, path.estimate + path.half_width
        axes.fill_between(path.users, low, high, alpha=0.2, color=line.get_color())
    axes.axhline(0, color="grey", linestyle=":")
    axes.set_title(f"{experiment.name}: {measure} against {experiment.variants[0].name}")
    axes.set_xlabel("users with an outcome")
    axes.set_ylabel("difference, with its 95% confidence sequence")
    if paths:
        axes.legend()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
