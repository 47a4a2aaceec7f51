from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2
from typer.testing import CliRunner

from <<cookiecutter.package_name>>.cli import app
from <<cookiecutter.package_name>>.experiment import (
    Experiment,
    ExperimentError,
    read_experiment,
    validated,
    write_experiment,
)
from <<cookiecutter.package_name>>.monitoring.experiment_analysis import (
    ALPHA,
    Report,
    Users,
    analyse,
    chi_square_p,
    effect_path,
    needed_users,
    power,
)
from <<cookiecutter.package_name>>.prediction_log import SegmentWriter, newest_answer
from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.settings import Settings

from ..logs import BINARY, logged_rows
from ..trained import SIGNATURES

START = datetime(2026, 3, 1)
WEIGHTS = {"control": "0.9", "treatment": "0.1"}


def experiment(*weights: str, **changes: Any) -> Experiment:
    variants = [
        {"name": name, "model": str(number), "weight": weight}
        for number, (name, weight) in enumerate(
            zip(("control", "treatment", "third"), weights, strict=False), start=1
        )
    ]
    return validated({"name": "test", "variants": variants, **changes})


def simulated(
    random: np.random.Generator, number: int, shares: list[float], rates: list[float]
) -> Users:
    arms = random.choice(len(shares), number, p=shares)
    values = (random.random(number) < np.array(rates)[arms]).astype(float)
    return Users(arms, np.tile(shares, (number, 1)), values)


def seen(users: Users, arm: int = 1, planned: int = 5_000) -> int:
    """The sign of the first difference that somebody who looks after each user would report."""
    path = effect_path(users, arm, planned)
    found = np.flatnonzero(np.abs(path.estimate) > path.half_width)
    return int(np.sign(path.estimate[found[0]])) if len(found) else 0


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.8, 0.2]])
def test_peeking_after_every_user_finds_nothing_where_nothing_is(shares: list[float]) -> None:
    """1,000 A/A experiments; the count of false alarms fits a rate of at most ALPHA."""
    random = np.random.default_rng(1)
    runs, false = 1_000, 0
    for _ in range(runs):
        false += seen(simulated(random, 5_000, shares, [0.1, 0.1])) != 0
    assert false <= runs * ALPHA, false
    # A fixed-horizon test that is looked at as often is wrong far more often than it says.
    users = [simulated(random, 5_000, shares, [0.1, 0.1]) for _ in range(100)]
    fooled = 0
    for one in users:
        path = effect_path(one, 1, 5_000)
        fooled += bool((np.abs(path.estimate) * np.sqrt(path.users) > 1.96 * path.deviation).any())
    assert fooled > 100 * ALPHA


def test_several_treatments_share_the_error() -> None:
    random = np.random.default_rng(2)
    false = 0
    for _ in range(300):
        users = simulated(random, 4_000, [0.4, 0.3, 0.3], [0.2, 0.2, 0.2])
        false += any(seen(users, arm) for arm in (1, 2))
    assert false <= 300 * ALPHA


@pytest.mark.parametrize(("rate", "sign"), [(0.16, 1), (0.05, -1)])
def test_planted_effects_are_found(rate: float, sign: int) -> None:
    random = np.random.default_rng(3)
    found = [seen(simulated(random, 5_000, [0.5, 0.5], [0.1, rate])) for _ in range(100)]
    assert found.count(sign) >= 95
    assert found.count(-sign) == 0


def test_a_ramp_amid_a_trend_does_not_look_like_an_effect() -> None:
    """Users who came early convert more, and most of them were control's: no arm is better."""
    random = np.random.default_rng(4)
    false, naive = 0, 0
    for _ in range(100):
        early = simulated(random, 3_000, [0.9, 0.1], [0.4, 0.4])
        late = simulated(random, 3_000, [0.2, 0.8], [0.1, 0.1])
        parts = [(a, b) for a, b in zip(vars(early).values(), vars(late).values(), strict=True)]
        users = Users(*(np.concatenate(part) for part in parts))
        false += seen(users, planned=6_000) != 0
        means = [users.values[users.arms == arm].mean() for arm in (0, 1)]
        naive += means[1] < means[0] - 0.1
    assert false <= 10
    assert naive == 100


def test_needed_users_give_the_promised_power() -> None:
    wanted, deviation = 0.05, 2 * math.sqrt(0.1 * 0.9)
    number = needed_users(wanted, deviation, 5_000, ALPHA)
    assert number is not None
    assert power(number - 1, wanted, deviation, 5_000, ALPHA) < 0.8
    random = np.random.default_rng(5)
    found = [seen(simulated(random, number, [0.5, 0.5], [0.1, 0.15])) for _ in range(100)]
    assert found.count(1) >= 70


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7])
def test_chi_square_agrees_with_scipy(degrees: int) -> None:
    for statistic in (0.0, 0.5, 3.84, 20.0, 90.0):
        assert chi_square_p(statistic, degrees) == pytest.approx(chi2.sf(statistic, degrees))


def write_log(settings: Settings, test: Experiment, rows: pd.DataFrame) -> None:
    """Compacted rows and feedback; rows: user_id, variant, prediction, outcome (None: unknown)."""
    count = len(rows)
    at = pd.Series([START + timedelta(seconds=n) for n in range(count)]).astype("datetime64[us]")
    log = pd.DataFrame({
        "request_id": [f"r{n}" for n in range(count)], "at": at,
        "model_version": rows["variant"].map({v.name: v.model for v in test.variants}),
        "variant": rows["variant"], "experiment": test.name, "shadow": False,
        "user_id": rows["user_id"], "latency_seconds": 0.002, "amount": 1.0,
        "prediction": rows["prediction"], "confidence": 0.9,
    })  # fmt: skip
    known = rows["outcome"].notna()
    feedback = pd.DataFrame({
        "request_id": log["request_id"][known], "outcome": rows["outcome"][known].astype(str),
        "at": at[known] + timedelta(days=1),
    })  # fmt: skip
    for folder, frame in (("days", log), ("feedback", feedback)):
        path = settings.prediction_log_dir / folder / "2026-03-01" / "a.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path)


def answered(test: Experiment, number: int, rates: dict[str, float], seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    users = [f"u{n}" for n in range(number)]
    variants = [test.assign(user).name for user in users]
    outcomes = [int(random.random() < rates[variant]) for variant in variants]
    return pd.DataFrame(
        {"user_id": users, "variant": variants, "prediction": 1, "outcome": outcomes}
    )


def analysed(settings: Settings, test: Experiment, **options: Any) -> Report:
    return analyse(settings, test, SIGNATURES["binary"], **options)


@pytest.mark.parametrize(
    ("rate", "code", "words"),
    [
        (0.35, 10, "treatment is better in conversion"),
        (0.1, 11, "every treatment is worse"),
        (0.2, 0, "no decision yet; about"),
    ],
)
def test_the_verdict_follows_the_log(
    settings: Settings, tmp_path: Path, rate: float, code: int, words: str
) -> None:
    test = experiment("0.5", "0.5")
    write_log(settings, test, answered(test, 3_000, {"control": 0.2, "treatment": rate}))
    picture = tmp_path / "pictures" / "effect.png"
    report = analysed(settings, test, picture=picture)
    assert report.exit_code == code, report
    assert words in report.verdict
    assert report.winner == ("treatment" if code == 10 else None)
    assert picture.read_bytes().startswith(b"\x89PNG")
    control = report.arms[0]
    assert control.users == control.outcomes
    assert control.versions == ("1",)
    assert control.latency_p95 == pytest.approx(0.002)
    assert report.sample_ratio_p > 0.001


def test_no_difference_worth_finding_is_a_decision(settings: Settings) -> None:
    test = experiment("0.5", "0.5")
    write_log(settings, test, answered(test, 3_000, {"control": 0.2, "treatment": 0.2}))
    assert analysed(settings, test, smallest_wanted=0.2).exit_code == 13


def test_lost_exposures_are_a_sample_ratio_mismatch(settings: Settings) -> None:
    test = experiment("0.5", "0.5")
    rows = answered(test, 4_000, {"control": 0.2, "treatment": 0.5})
    kept = (rows["variant"] == "control") | (np.arange(len(rows)) % 5 > 0)
    write_log(settings, test, rows[kept].reset_index(drop=True))
    report = analysed(settings, test)
    assert (report.exit_code, report.winner) == (12, None)
    assert "sample ratio mismatch" in report.verdict


def test_feedback_of_conversions_alone_is_warned_of(settings: Settings) -> None:
    test = experiment("0.5", "0.5")
    rows = answered(test, 4_000, {"control": 0.2, "treatment": 0.5})
    write_log(settings, test, rows.assign(outcome=rows["outcome"].where(rows["outcome"] == 1)))
    report = analysed(settings, test)
    assert report.exit_code == 0
    assert "feedback comes more often" in report.warnings[0]


def test_the_unit_is_the_user(settings: Settings) -> None:
    """First variant, and the outcome of the earliest row of that variant that has one."""
    test = experiment("0.5", "0.5")
    rows = pd.DataFrame(
        [
            ("a", "control", 1, None),
            ("a", "control", 1, 1),
            ("a", "control", 1, 0),
            ("a", "treatment", 1, 0),
            ("b", "treatment", 1, 0),
            ("b", "control", 1, 1),
            ("c", "treatment", 1, None),
            (None, "control", 1, 1),
        ],
        columns=["user_id", "variant", "prediction", "outcome"],
    )
    write_log(settings, test, rows)
    control, treatment = analysed(settings, test).arms
    assert (control.users, control.outcomes, control.figure) == (1, 1, 1.0)
    assert (treatment.users, treatment.outcomes, treatment.figure) == (2, 1, 0.0)


def test_expected_users_follow_the_ramps(settings: Settings) -> None:
    first = {"since": START, "weights": WEIGHTS}
    test = experiment("0.9", "0.1", history=[first])
    half = test.ramped({"treatment": Decimal("0.5")}, START + timedelta(seconds=2_000))
    users = [f"u{n}" for n in range(4_000)]
    variants = [(test if n < 2_000 else half).assign(user).name for n, user in enumerate(users)]
    rows = pd.DataFrame({"user_id": users, "variant": variants, "prediction": 1, "outcome": 0})
    write_log(settings, half, rows)
    report = analysed(settings, half)
    assert report.arms[1].expected_users == pytest.approx(0.1 * 2_000 + 0.5 * 2_000)
    assert report.sample_ratio_p > 0.001


def test_a_ramp_holds_for_what_is_answered_after_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_HOME", str(settings.home))
    monkeypatch.setenv("ML_AS_OF", START.isoformat())
    test = experiment("0.9", "0.1", history=[{"since": START, "weights": WEIGHTS}])
    write_experiment(settings.experiment_path, test)
    rows = answered(test, 100, {"control": 0.2, "treatment": 0.2})
    write_log(settings, test, rows)
    newest = newest_answer(settings)
    assert newest is not None
    assert newest > START
    ramp = ("experiment", "ramp", "treatment=0.5")
    assert CliRunner().invoke(app, ramp).exit_code == 0

    writer = SegmentWriter(settings.prediction_log_dir)
    writer.describe("1", BINARY)
    waiting = newest + timedelta(seconds=9)
    writer.append(logged_rows(["r"], at=waiting.replace(tzinfo=timezone.utc).timestamp()))
    writer.close()
    assert CliRunner().invoke(app, ramp).exit_code == 0
    ramped = read_experiment(settings.experiment_path)
    assert ramped is not None
    microsecond = timedelta(microseconds=1)
    assert [allocation.since for allocation in ramped.history] == [
        START,
        newest + microsecond,
        waiting + microsecond,
    ]


def test_the_measure_follows_the_task(settings: Settings) -> None:
    test = experiment("0.5", "0.5")
    rows = answered(test, 1_000, {"control": 0.5, "treatment": 0.5})
    right = (rows["variant"] == "treatment") != (np.arange(len(rows)) % 8 == 0)
    right = rows.assign(prediction=rows["outcome"].where(right, 2))
    write_log(settings, test, right)
    report = analyse(settings, test, SIGNATURES["multiclass"])
    assert (report.measure, report.exit_code) == ("accuracy", 10)
    assert [arm.figure for arm in report.arms] == pytest.approx([1 / 8, 7 / 8], abs=0.05)
    noise = np.random.default_rng(0).normal(0, 1, len(rows))
    wrong = noise * (1 + (rows["variant"] == "treatment"))
    write_log(settings, test, rows.assign(prediction=rows["outcome"] + wrong))
    report = analyse(settings, test, SIGNATURES["regression"])
    assert (report.measure, report.exit_code) == ("error", 11)
    with pytest.raises(ExperimentError, match="'conversion' does not fit a regression"):
        analyse(settings, test, SIGNATURES["regression"], "conversion")


def test_answers_of_an_earlier_task_beside_do_not_matter(settings: Settings) -> None:
    """A log that holds classes in text too has a text column of predictions."""
    earlier, test = experiment("0.5", "0.5", name="earlier"), experiment("0.5", "0.5")
    rows = answered(test, 100, {"control": 0.5, "treatment": 0.5})
    write_log(settings, test, rows.assign(prediction=rows["outcome"] + 2.0))
    other = settings.model_copy(update={"home": settings.home / "other"})
    write_log(other, earlier, rows.assign(prediction="yes"))
    for folder in ("days", "feedback"):
        source = other.prediction_log_dir / folder / "2026-03-01" / "a.parquet"
        source.rename(settings.prediction_log_dir / folder / "2026-03-01" / "b.parquet")
    report = analyse(settings, test, SIGNATURES["regression"])
    assert [arm.figure for arm in report.arms] == [2.0, 2.0]


def test_a_log_without_rows_says_what_to_do(settings: Settings) -> None:
    test = experiment("0.5", "0.5")
    with pytest.raises(ExperimentError, match="run `log compact` first"):
        analysed(settings, test)
    write_log(settings, experiment("0.5", "0.5", name="other"), answered(test, 10, {
        "control": 1, "treatment": 1}))  # fmt: skip
    with pytest.raises(ExperimentError, match="holds no user of test yet"):
        analysed(settings, test)


def test_the_winner_is_promoted_through_the_gate(
    registry: Registry, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = registry._settings
    monkeypatch.setenv("ML_HOME", str(settings.home))
    production = registry.register(good).number
    registry.validate(production)
    registry.promote(production)
    candidate = registry.register(good).number

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["experiment", *words])

    start = ("start", "--name", "test", "--variant", "control=production:0.9")
    assert run(*start, "--variant", "treatment=staging:0.1").exit_code == 0
    assert run("ramp", "treatment=0.5").exit_code == 0
    test = read_experiment(settings.experiment_path)
    assert test is not None
    assert [arm.model for arm in test.variants] == ["production", candidate]
    registry.sync()
    # The clock of a test stands before the log's: the ramp's weights hold for all of it.
    test = test.model_copy(update={"history": ()})
    write_experiment(settings.experiment_path, test)
    rows = answered(test, 2_000, {"control": 0.2, "treatment": 0.2})
    write_log(settings, test, rows)
    assert run("report").exit_code == 0
    assert isinstance(run("promote").exception, ExperimentError)
    write_log(settings, test, answered(test, 2_000, {"control": 0.2, "treatment": 0.5}))
    result = run("report", "--json")
    assert (result.exit_code, json.loads(result.stdout)["exit_code"]) == (10, 10)
    assert "has not passed the gate" in str(run("promote").exception)
    assert settings.experiment_path.exists()
    registry.validate(candidate)
    assert run("promote").exit_code == 0
    assert registry.version("production").number == candidate
    assert read_experiment(settings.experiment_path) is None
    assert registry.history()[-1].reason.startswith("experiment test: treatment is better")
    again = run(*start, "--variant", "treatment=staging:0.1")
    assert "take another name" in str(again.exception)
