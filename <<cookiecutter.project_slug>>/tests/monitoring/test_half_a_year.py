"""Half a year of the closed loop, day by day: two shifts, a broken day, and what came of them.

Each day the log that is known by then is imported, production answers some customers, outcomes of
30 days ago come back, and ``drift run --retrain`` does what a nightly job would do. The simulation
knows the future too; only the figures of the picture and of the assertions are taken from it.

``HALF_A_YEAR=FOLDER`` keeps ``half-a-year.svg`` and ``half-a-year.json`` there.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from <<cookiecutter.package_name>> import cli, data
from <<cookiecutter.package_name>>.bundle import Bundle, Interval
from <<cookiecutter.package_name>>.compaction import compact
from <<cookiecutter.package_name>>.database import literal
from <<cookiecutter.package_name>>.evaluation import paired_gain
from <<cookiecutter.package_name>>.monitoring.retraining import retrain
from <<cookiecutter.package_name>>.pipeline import PipelineError, run
from <<cookiecutter.package_name>>.prediction_log import Feedback, LoggedRows, SegmentWriter
from <<cookiecutter.package_name>>.purchases import (
    LOG_FILE,
    ColumnMapping,
    DataError,
    import_log,
    simulate,
)
from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.served_models import read_aliases, served_bundle
from <<cookiecutter.package_name>>.settings import Settings

from .test_alerts import receiving

logger = logging.getLogger(__name__)

DAYS = 180
SHIFTS = (2, 90)
BROKEN_DAY = 50
CUSTOMERS = 3_000
ASKED_A_DAY = 500
FIRST = datetime(2026, 1, 1)
LAST_OUTCOME = FIRST + timedelta(days=DAYS) + data.HORIZON
COLUMNS = ColumnMapping("customer_id", "purchased_at", "amount")
NAMES = [feature.name for feature in data.FEATURES]
MONTH = tuple(range(0, 30, 5))
RECOVERED = 0.78


@dataclass
class Promotion:
    """A version that went into production, and its gain over the one before on the next month."""

    day: int
    version: str
    gain: Interval


@dataclass
class HalfAYear:
    """The loop's folder, the simulation that knows what comes, and the diary."""

    home: Path
    truth: duckdb.DuckDBPyConnection
    log: Path
    statuses: dict[int, str] = field(default_factory=dict)
    metrics: dict[int, float] = field(default_factory=dict)
    promotions: list[Promotion] = field(default_factory=list)
    asked: dict[int, list[tuple[str, Any]]] = field(default_factory=dict)

    def at(self, day: int) -> datetime:
        return FIRST + timedelta(days=day)

    def settings(self, day: int) -> Settings:
        """What the environment says, on a day."""
        return Settings(fixed_clock=self.at(day))

    def deliver(self, day: int, amounts: bool = True) -> Path:
        """The retailer's export of a day: all purchases so far, or the same without amounts."""
        export = self.home / "export.parquet"
        amount = "amount" if amounts else "NULL::DOUBLE AS amount"
        self.truth.execute(
            f"COPY (SELECT customer_id, purchased_at, {amount} FROM read_parquet("
            f"{literal(self.log)}) WHERE purchased_at < {literal(self.at(day))}::TIMESTAMP) "
            f"TO {literal(export)} (FORMAT parquet)"
        )
        return export

    def take_in(self, day: int) -> None:
        import_log(self.settings(day), self.deliver(day), COLUMNS, True, replace=True)

    def customers(self, at: datetime) -> pd.DataFrame:
        """Everybody known at an instant: features and what will come true."""
        features = data.features_at(self.truth, at).df()
        rows = features.merge(data.labels_at(self.truth, at).df(), on=data.KEY)
        return rows.sort_values(data.KEY, ignore_index=True)

    def serve(self, day: int) -> None:
        """Answer some customers as the server does, and give back what has come true by now."""
        settings = self.settings(day)
        everybody = self.customers(self.at(day - 1))
        rows = everybody.sample(ASKED_A_DAY, random_state=day).reset_index(drop=True)
        if day == BROKEN_DAY:
            rows = rows.assign(avg_purchase_amount=0.0, amount_last_90_days=0.0)
        version, bundle = self.production()
        blocks = bundle.signature.blocks(rows[NAMES])
        ids = [f"{day}-{number}" for number in range(len(rows))]
        stamp = (self.at(day) - timedelta(hours=12) - datetime(1970, 1, 1)).total_seconds()
        writer = SegmentWriter(settings.prediction_log_dir)
        writer.describe(version, bundle.signature)
        writer.append(
            LoggedRows(
                model_version=version,
                variant="production",
                experiment="",
                shadow=False,
                request_ids=ids,
                user_ids=rows[data.KEY].tolist(),
                at=np.full(len(rows), stamp),
                latency_seconds=np.full(len(rows), 0.001, np.float32),
                blocks=blocks,
                scores=np.asarray(bundle.scorer().scores(blocks), np.float32),
            )
        )
        self.asked[day] = list(zip(ids, rows[data.LABEL].tolist(), strict=True))
        for request_id, outcome in self.asked.pop(day - data.HORIZON.days, ()):
            writer.append(Feedback(request_id, outcome, stamp))
        writer.close()
        assert not writer.dropped
        compact(settings)

    def production(self) -> tuple[str, Bundle]:
        served = Settings().served_dir
        version = read_aliases(served)["production"]
        return version, served_bundle(served, version)

    def watch(self, day: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """The nightly job."""
        monkeypatch.setenv("ML_AS_OF", self.at(day).isoformat())
        before, replaced = self.production()
        result = CliRunner().invoke(cli.app, ["drift", "run", "--no-html", "--retrain"])
        codes = {0: "steady", 3: "drifted", 4: "broken"}
        assert result.exit_code in codes, result.output
        self.statuses[day] = codes[result.exit_code]
        logger.info("day %d: %s: %s", day, codes[result.exit_code], result.output[-300:])
        version, bundle = self.production()
        if version != before:
            gain = self.gain(day, bundle, replaced)
            self.promotions.append(Promotion(day, version, gain))

    def gain(self, day: int, new: Bundle, old: Bundle) -> Interval:
        """On the month that follows, or until habits change: its outcomes are not known yet."""
        end = next((shift for shift in SHIFTS if shift > day), DAYS)
        days = [day + later for later in MONTH if day + later <= end]
        rows = pd.concat([self.customers(self.at(later)) for later in days])
        blocks = new.signature.blocks(rows[NAMES])
        _, clusters = np.unique(rows[data.KEY].to_numpy(str), return_inverse=True)
        scores = [bundle.scorer().scores(blocks) for bundle in (new, old)]
        outcomes = rows[data.LABEL].to_numpy()
        return paired_gain(new.signature, outcomes, *scores, clusters, 100, 7)

    def measure(self, day: int) -> None:
        from sklearn.metrics import roc_auc_score

        rows = self.customers(self.at(day))
        _, bundle = self.production()
        scores = bundle.scorer().scores(bundle.signature.blocks(rows[NAMES]))
        self.metrics[day] = float(roc_auc_score(rows[data.LABEL], scores[:, 1]))

    def mean(self, first: int, last: int) -> float:
        return float(np.mean([v for day, v in self.metrics.items() if first <= day <= last]))

    def refuse_the_broken_day(self) -> None:
        """Neither the import nor a retraining by hand takes in an export without amounts."""
        settings = self.settings(BROKEN_DAY)
        registry = Registry(settings)
        versions = len(registry.versions())
        export = self.deliver(BROKEN_DAY, amounts=False)
        with pytest.raises(DataError, match="unreadable amount"):
            import_log(settings, export, COLUMNS, True, replace=True)
        raw = settings.data_dir / LOG_FILE
        kept = raw.read_bytes()
        export.replace(raw)
        with pytest.raises(PipelineError, match="avg_purchase_amount"):
            retrain(settings, "by hand, on a broken day", force=True)
        raw.write_bytes(kept)
        assert len(registry.versions()) == versions

    def draw(self, folder: Path) -> None:
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(9, 3.4), layout="constrained")
        axes.plot(list(self.metrics), list(self.metrics.values()), color="black", linewidth=1.3)
        low = min(self.metrics.values()) - 0.04
        for shift in SHIFTS:
            axes.axvline(shift, color="tab:red", label="habits change" * (shift == SHIFTS[0]))
        for kind, mark, colour in (("drifted", "|", "tab:orange"), ("broken", "X", "tab:purple")):
            found = [day for day, status in self.statuses.items() if status == kind]
            axes.plot(found, [low] * len(found), mark, color=colour, label=f"alert: {kind}")
        for number, promotion in enumerate(self.promotions):
            label = "promotion" if number == 0 else ""
            axes.axvline(promotion.day, color="tab:green", linestyle="--", label=label)
        axes.set(xlabel="day", ylabel="ROC AUC of production", xlim=(-2, DAYS + 2))
        figure.legend(loc="outside upper center", fontsize=8, ncols=4)
        figure.savefig(folder / "half-a-year.svg", metadata={"Date": None})
        pyplot.close(figure)
        story = {
            "metrics": self.metrics,
            "statuses": self.statuses,
            "promotions": [[p.day, p.version, p.gain.model_dump()] for p in self.promotions],
        }
        (folder / "half-a-year.json").write_text(json.dumps(story, indent=1), encoding="utf-8")


def begin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> HalfAYear:
    """The simulation, and a first version in production after two years of warm-up."""
    shifts = [(FIRST + timedelta(days=day)).date() for day in SHIFTS]
    truth = Settings(home=folder / "truth", fixed_clock=LAST_OUTCOME)
    simulate(truth, CUSTOMERS, 7, LAST_OUTCOME.date(), replace=False, shifts=shifts)
    home = folder / "home"
    home.mkdir()
    for name, value in {
        "HOME": home,
        "HOLDOUT_TIMES": 1,
        "FOLDS": 1,
        "SEARCH_BUDGET": 1,
        "BOOTSTRAP_RESAMPLES": 100,
        "DRIFT_WINDOW_DAYS": 1,
        "ALLOWED_SEGMENT_HARM": 0.05,
        "ALLOWED_CALIBRATION_ERROR": 0.2,
    }.items():
        monkeypatch.setenv(f"ML_{name}", str(value))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    db = duckdb.connect()
    data.prepare(db, truth)
    half = HalfAYear(home, db, truth.data_dir / LOG_FILE)
    half.take_in(0)
    settings = half.settings(0)
    version = run(settings)
    registry = Registry(settings)
    registry.promote(str(version), reason="the first one")
    registry.sync()
    return half


def newest_label_windows(half: HalfAYear) -> list[timedelta]:
    """By how much the newest label window of each training frame ended before that day's now."""
    margins = []
    for frame in sorted(half.home.glob("pipeline/artifacts/*/build-features/frame")):
        prepared = frame.parents[1] / "prepare-data"
        said = json.loads((prepared / "executor_output.json").read_text(encoding="utf-8"))
        as_of = datetime.fromisoformat(said["parameterValues"]["Output"])
        assert pd.read_parquet(prepared / "raw" / LOG_FILE)["purchased_at"].max() < as_of
        newest = pd.read_parquet(frame)["event_timestamp"].max()
        margins.append(as_of - (newest + data.HORIZON))
    return margins


@pytest.mark.slow
def test_the_loop_recovers_from_two_shifts_and_refuses_a_broken_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = begin(tmp_path, monkeypatch)
    with receiving() as hook:
        monkeypatch.setenv("ML_ALERT_WEBHOOK_URL", hook.address)
        for day in range(1, DAYS + 1):
            half.take_in(day)
            half.serve(day)
            if day == BROKEN_DAY:
                half.refuse_the_broken_day()
            half.watch(day, monkeypatch)
            if day % 5 == 0:
                half.measure(day)
    half.draw(Path(os.environ.get("HALF_A_YEAR", tmp_path)))

    broken = [body["as_of"] for body in hook.bodies if body["name"] == "BrokenData"]
    assert broken[0] == half.at(BROKEN_DAY).isoformat()
    assert [day for day, status in half.statuses.items() if status == "broken"] == [BROKEN_DAY]
    assert BROKEN_DAY not in {promotion.day for promotion in half.promotions}

    margins = newest_label_windows(half)
    assert len(margins) > len(half.promotions)
    assert min(margins) >= timedelta()

    assert all(promotion.gain.high >= 0 for promotion in half.promotions)
    for shift, until in zip(SHIFTS, (*SHIFTS[1:], DAYS), strict=True):
        told = [
            body["as_of"]
            for body in hook.bodies
            if (body["name"], body["state"]) == ("ModelDrift", "firing")
            and half.at(shift) < datetime.fromisoformat(body["as_of"]) <= half.at(until)
        ]
        answers = [p for p in half.promotions if shift < p.day <= until]
        assert told
        assert answers
        assert any(promotion.gain.low > 0 for promotion in answers)
        recovered = half.mean(answers[-1].day, until)
        assert recovered > RECOVERED
        assert recovered > half.mean(answers[0].day - 30, answers[0].day - 1)
