"""Batch scoring from Parquet to Parquet beside ONNX Runtime on the same rows in memory.

Both use the same threads and batches and run in turns. ONNX Runtime's rate is of its runs alone:
no file, no column is arranged and no answer is written.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.ensemble import RandomForestClassifier

from <<cookiecutter.package_name>> import batch_scoring, data, model
from <<cookiecutter.package_name>>.bundle import Bundle, Interval, Metadata, Profile, write_bundle
from <<cookiecutter.package_name>>.export import to_onnx
from <<cookiecutter.package_name>>.schema import Feature, Signature
from <<cookiecutter.package_name>>.served_models import PRODUCTION, add_version, write_aliases
from <<cookiecutter.package_name>>.settings import Settings

NAMES = tuple(f"f{index}" for index in range(10))
SIGNATURE = Signature(
    task="binary",
    label="outcome",
    features=tuple(Feature(name=name) for name in NAMES),
    classes=(0, 1),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    rows = random.gamma(2, 20, (options.rows, len(NAMES))).astype(np.float32)
    total = rows[:50_000].sum(axis=1)
    outcomes = (total + random.normal(0, 50, len(total)) > np.median(total)).astype(int)
    estimators = {
        "random forest, 100 trees of depth 10": RandomForestClassifier(
            100, max_depth=10, random_state=0, n_jobs=-1
        ),
        f"model.py's {type(model.estimator(model.PARAMETERS, 0)).__name__}": model.estimator(
            model.PARAMETERS, 0
        ),
    }
    print("| model | ONNX Runtime, rows/s | predict, rows/s | ratio |\n|---|---|---|---|")
    for name, estimator in estimators.items():
        fitted = estimator.fit(_frame(rows[:50_000]), outcomes)
        with tempfile.TemporaryDirectory() as folder:
            print(_line(name, _bundle(fitted), rows, Path(folder), options.rounds), flush=True)
    print(
        f"\n{options.rows:,} rows of {len(NAMES)} float32 features and a key; medians of "
        f"{options.rounds} rounds, lowest and highest in brackets; {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}, "
        f"onnxruntime {onnxruntime.__version__}, load {os.getloadavg()[0]:.1f}."
    )


def _line(name: str, bundle: Bundle, rows: Any, home: Path, rounds: int) -> str:
    write_bundle(home / "bundle", bundle)
    settings = Settings(_env_file=None, home=home)
    add_version(settings.served_dir, "1", home / "bundle")
    write_aliases(settings.served_dir, {PRODUCTION: "1"})
    source = home / "in.parquet"
    key = {data.KEY: np.arange(len(rows))}
    pq.write_table(pa.table({**key, **dict(zip(NAMES, rows.T, strict=True))}), source)
    scorer = bundle.scorer(settings.scoring_threads or 0)
    size = batch_scoring.BATCH_ROWS
    own, ours = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        for start in range(0, len(rows), size):
            scorer.scores({"numbers": rows[start : start + size]})
        own.append(len(rows) / (time.perf_counter() - started))
        started = time.perf_counter()
        batch_scoring.score_file(settings, source, home / "out.parquet", None)
        ours.append(len(rows) / (time.perf_counter() - started))
    ratios = [b / a for a, b in zip(own, ours, strict=True)]
    return (
        f"| {name} | {_spread(own, ',.0f')} | {_spread(ours, ',.0f')} | {_spread(ratios, '.2f')} |"
    )


def _spread(values: list[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _frame(rows: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(NAMES))


def _bundle(fitted: Any) -> Bundle:
    now = datetime.now(timezone.utc)
    return Bundle(
        model=to_onnx(fitted, SIGNATURE),
        metadata=Metadata(
            model_name="bench",
            signature=SIGNATURE,
            created_at=now,
            as_of=now,
            estimator=type(fitted).__name__,
            parameters={},
            primary_metric="",
            metrics={},
            baseline_metrics={},
            gain_over_baseline=Interval(estimate=0, low=0, high=0),
            onnx_difference=0,
            data_fingerprint="",
            git_commit=None,
            run=None,
            packages={},
        ),
        profile=Profile(rows=0),
    )


if __name__ == "__main__":
    main()
