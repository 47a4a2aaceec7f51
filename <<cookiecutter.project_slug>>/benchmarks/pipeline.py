"""A pipeline run's wall time against the same steps called as functions in one process.

The goal: under 1.5 times, plus 2 seconds for each step.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

from <<cookiecutter.package_name>> import pipeline, steps
from <<cookiecutter.package_name>>.kubeflow import STEPS, step_variables
from <<cookiecutter.package_name>>.purchases import simulate
from <<cookiecutter.package_name>>.settings import Settings
from <<cookiecutter.package_name>>.training import candidates


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as folder:
        for number in range(options.rounds):
            homes = [Path(folder) / f"{kind}-{number}" for kind in ("functions", "pipeline")]
            for home in homes:
                simulate(Settings(home=home), options.customers, 7, date(2026, 1, 1), replace=False)
            rounds.append(
                (timed(as_functions, Settings(home=homes[0])), timed(run, Settings(home=homes[1])))
            )
    functions, whole = (statistics.median(column) for column in zip(*rounds, strict=True))
    count = len(STEPS) - 1 + len(candidates(Settings()))
    goal = 1.5 * functions + 2 * count
    print("| | seconds | of the functions' |\n|---|---|---|")
    print(f"| functions in one process | {functions:.1f} | 1.00 |")
    print(f"| pipeline, {count} steps | {whole:.1f} | {whole / functions:.2f} |")
    print(f"| goal: 1.5 times and 2 s a step | {goal:.1f} | {goal / functions:.2f} |")
    print(
        f"\nMedians of {options.rounds} interleaved rounds, {options.customers:,} customers. "
        f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f}."
    )


def timed(function, settings: Settings) -> float:  # type: ignore[no-untyped-def]
    """Seconds that it takes."""
    began = time.perf_counter()
    function(settings)
    return time.perf_counter() - began


def run(settings: Settings) -> None:
    """The pipeline."""
    if pipeline.run(settings, cache=False) is None:
        raise SystemExit("nothing was registered: the comparison would not be a fair one")


def as_functions(settings: Settings) -> None:
    """The pipeline's steps, one after the other, in this process."""
    os.environ.update(step_variables(settings, everything=True), ML_HOME=str(settings.home))
    work = settings.home / "work"
    raw, frame, model = (str(work / name) for name in ("raw", "frame.parquet", "model"))
    now = steps.prepare_data(settings.as_of.isoformat(), raw)
    steps.build_features(raw, now, frame)
    steps.check_data(raw, frame, now)
    tried = [steps.train_candidate(frame, now, one) for one in candidates(settings)]
    steps.evaluate(frame, now, tried, model)
    if not steps.is_better(steps.compare(model)):
        raise SystemExit("the model is not better: the comparison would not be a fair one")
    steps.register(model)


if __name__ == "__main__":
    main()
