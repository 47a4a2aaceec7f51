"""Time the drift job beside plain Evidently on the same rows.

Both read the same Parquet files of reference and current rows; the imports and the reading of
Evidently's data frames are outside its time, as is the reference's profile, which is stored with a
version. The sides run in turns; what counts is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from <<cookiecutter.package_name>>.database import connect
from <<cookiecutter.package_name>>.monitoring import outputs
from <<cookiecutter.package_name>>.monitoring.counting import count, profile_rows, sample_rows
from <<cookiecutter.package_name>>.monitoring.drift import (
    ColumnVerdict,
    judge_columns,
    parquet_rows,
)
from <<cookiecutter.package_name>>.schema import Feature, Signature
from <<cookiecutter.package_name>>.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

NUMBERS = [f"number_{i}" for i in range(15)]
TEXTS = [f"text_{i}" for i in range(5)]
SIGNATURE = Signature(
    task="regression",
    label="outcome",
    features=tuple(
        Feature(name=name, type="float" if name in NUMBERS else "string")
        for name in (*NUMBERS, *TEXTS)
    ),
)
# Deviations by which the first columns are moved, and shares that get another category.
MOVED = {"number_0": 0.5, "number_1": 0.8, "number_2": 0.15}
CHANGED = {"text_0": 0.4, "text_1": 0.02}
GOALS = {"default preset": 100, "same statistic": 40, "whole job": 20}


def main() -> int:
    """Run the rounds and print the table; 1 where a goal is missed or a verdict differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = {side: make(folder, side, wanted.rows) for side in ("reference", "current")}
        return compare(Settings(home=folder), folder, frames, wanted.rounds)


def make(folder: Path, side: str, rows: int) -> pd.DataFrame:
    """Write one side's rows; the current ones have drifted in some columns."""
    random = np.random.default_rng(side == "current")
    frame = pd.DataFrame({name: random.normal(0, 1, rows) for name in NUMBERS})
    for name in TEXTS:
        frame[name] = random.choice(list("abcdef"), rows, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    if side == "current":
        for name, shift in MOVED.items():
            frame[name] += shift
        for name, share in CHANGED.items():
            frame.loc[random.random(rows) < share, name] = "f"
    frame.to_parquet(folder / f"{side}.parquet", index=False, row_group_size=100_000)
    return frame


def compare(settings: Settings, folder: Path, frames: dict[str, pd.DataFrame], rounds: int) -> int:
    """Time the four ways in turns and print what came out."""
    with connect(settings) as db:
        rows = parquet_rows(db, str(folder / "reference.parquet"))
        profile = profile_rows(rows, SIGNATURE, settings.seed)
        before = sample_rows(rows, SIGNATURE.names, settings.drift_sample_rows, settings.seed)

    def verdicts() -> tuple[ColumnVerdict, ...]:
        with connect(settings) as db:
            rows = parquet_rows(db, str(folder / "current.parquet"))
            return judge_columns(settings, profile, count(rows, profile))

    def whole_job() -> None:
        with connect(settings) as db:
            rows = parquet_rows(db, str(folder / "current.parquet"))
            judge_columns(settings, profile, count(rows, profile))
            names, most = list(SIGNATURE.names), settings.drift_sample_rows
            sample = sample_rows(rows, names, most, settings.seed)
        outputs.write_evidently(folder / "sample.html", settings, before, sample)

    ways: dict[str, Callable[[], Any]] = {
        "verdicts": verdicts,
        "whole job": whole_job,
        "same statistic": lambda: evidently(frames, method="psi"),
        "default preset": lambda: evidently(frames),
    }
    whole_job()  # what is compiled and cached at first use is no part of any side
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            found[name] = way()
            seconds[name].append(time.perf_counter() - start)
    ours = {column.name for column in found["verdicts"] if column.status == "drifted"}
    return report(seconds, ours, found["same statistic"], len(frames["current"]), settings)


def evidently(frames: dict[str, pd.DataFrame], **options: Any) -> set[str]:
    """Plain Evidently on all rows; the names of the drifted columns."""
    definition = DataDefinition(numerical_columns=NUMBERS, categorical_columns=TEXTS)
    current, reference = (
        Dataset.from_pandas(frames[side], data_definition=definition)
        for side in ("current", "reference")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = Report([DataDriftPreset(**options)], include_tests=True).run(current, reference)
        content = run.dict()
    metrics = content["metrics"]
    return {
        metric["config"]["column"]
        for metric in metrics
        if "column" in metric["config"] and metric["value"] >= metric["config"]["threshold"]
    }


def report(
    seconds: dict[str, list[float]],
    ours: set[str],
    theirs: set[str],
    rows: int,
    settings: Settings,
) -> int:
    """The table in Markdown, and whether every goal is met."""
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        "default preset": ratio(seconds, "default preset", "verdicts"),
        "same statistic": ratio(seconds, "same statistic", "verdicts"),
        "whole job": ratio(seconds, "default preset", "whole job"),
    }
    lines = [
        f"| {rows:,} rows x {len(SIGNATURE.names)} columns | s | ratio | goal |",
        "|---|---|---|---|",
        f"| verdict of every column | {middle['verdicts']:.2f} | | |",
        f"| Evidently, default preset | {middle['default preset']:.1f} | "
        f"{ratios['default preset']:.0f} | {GOALS['default preset']} |",
        f"| Evidently, same statistic (PSI) | {middle['same statistic']:.1f} | "
        f"{ratios['same statistic']:.0f} | {GOALS['same statistic']} |",
        f"| whole job, with Evidently's report on {settings.drift_sample_rows:,} rows | "
        f"{middle['whole job']:.2f} | {ratios['whole job']:.0f} (default preset) | "
        f"{GOALS['whole job']} |",
        "",
        f"Drifted columns: {', '.join(sorted(ours))}; Evidently's PSI says "
        f"{'the same' if ours == theirs else ', '.join(sorted(theirs))}.",
        f"Medians of {len(seconds['verdicts'])} interleaved rounds. Evidently "
        f"{version('evidently')}, DuckDB {version('duckdb')}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}.",
    ]
    print("\n".join(lines))
    return int(ours != theirs or any(ratios[name] < goal for name, goal in GOALS.items()))


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """The median of the rounds' ratios."""
    pairs = zip(seconds[slow], seconds[fast], strict=True)
    return statistics.median(a / b for a, b in pairs)


if __name__ == "__main__":
    sys.exit(main())
