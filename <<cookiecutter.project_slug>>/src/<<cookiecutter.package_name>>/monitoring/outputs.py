"""What a run of the drift job leaves: JSON, Evidently's report, metrics, a tracked record."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import ProjectError
from ..profiling import answers
from ..settings import Settings
from ..tracking import start_run
from .drift import DriftReport, Reference

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

JSON_FILE = "drift.json"
TABLE_FILE = "columns.csv"
HTML_FILE = "evidently.html"
JOB = "drift"


class OutputError(ProjectError):
    """The metrics cannot be handed over."""


def write_report(
    settings: Settings, report: DriftReport, pages: dict[str, pd.DataFrame] | None = None
) -> Path:
    """Write the report's folder, which appears complete or not at all.

    Args:
        settings: where to write.
        report: what was found.
        pages: samples ``reference`` and ``current`` for Evidently's report, if there shall be one.
    """
    settings.drift_dir.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".report-", dir=settings.drift_dir))
    try:
        (staging / JSON_FILE).write_text(report.model_dump_json(indent=2), encoding="utf-8")
        table = pd.DataFrame([column.model_dump() for column in report.columns])
        if len(table):
            table.to_csv(staging / TABLE_FILE, index=False)
        if pages is not None:
            write_evidently(staging / HTML_FILE, settings, **pages)
        staging.chmod(0o755)
        folder = settings.drift_dir / f"{report.as_of:%Y%m%dT%H%M%S}"
        number = 1
        while folder.exists():
            number += 1
            folder = folder.with_name(f"{report.as_of:%Y%m%dT%H%M%S}-{number}")
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging)
        raise
    return folder


def reference_sample(settings: Settings, reference: Reference, file: str | None) -> pd.DataFrame:
    """A sample of the reference's rows with the model's answers."""
    from ..database import connect
    from ..holdout import ESTIMATOR
    from ..registry import Registry
    from .counting import sample_rows
    from .drift import parquet_rows

    most, signature = settings.drift_sample_rows, reference.bundle.signature
    if file is not None:
        with connect(settings) as db:
            rows = parquet_rows(db, file)
            return sample_rows(rows, rows.columns, most, settings.seed)
    holdout = Registry(settings).holdout(reference.version)
    said = answers(signature, holdout.scores[ESTIMATOR])
    frame = pd.concat([holdout.features.reset_index(drop=True), said], axis=1)
    return frame.sample(min(most, len(frame)), random_state=settings.seed)


def write_evidently(
    path: Path, settings: Settings, reference: pd.DataFrame, current: pd.DataFrame
) -> None:
    """Evidently's drift report (HTML) of two samples, with the statistic that the job judges by."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        known = current.columns[current.notna().any()]
        names = [name for name in known if name in reference.columns]
        numbers = [n for n in names if pd.api.types.is_numeric_dtype(reference[n])]
        definition = DataDefinition(
            numerical_columns=numbers,
            categorical_columns=[name for name in names if name not in numbers],
        )
        sides = [
            Dataset.from_pandas(_typed(side[names], numbers), data_definition=definition)
            for side in (current, reference)
        ]
        preset = DataDriftPreset(
            method="psi", threshold=settings.drift_threshold, drift_share=settings.drift_share
        )
        Report([preset], include_tests=True).run(*sides).save_html(str(path))


def publish_metrics(settings: Settings, report: DriftReport) -> None:
    """Hand the run's figures to Prometheus, by the ways that the settings name.

    Raises:
        OutputError: the Pushgateway does not take them.
    """
    from prometheus_client import push_to_gateway, write_to_textfile

    registry = _metrics(report)
    if settings.drift_textfile is not None:
        settings.drift_textfile.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(settings.drift_textfile), registry)
    if settings.drift_pushgateway:
        grouping = {"model_name": report.model_name}
        try:
            push_to_gateway(settings.drift_pushgateway, JOB, registry, grouping)
        except OSError as error:
            raise OutputError(
                f"the Pushgateway {settings.drift_pushgateway} does not take the metrics ({error}):"
                " check ML_DRIFT_PUSHGATEWAY"
            ) from error


def track_report(settings: Settings, report: DriftReport, folder: Path) -> None:
    """Record the run in the tracker."""
    with start_run(settings, f"drift-{report.as_of:%Y%m%d}") as run:
        run.log_tags({"kind": "drift", "status": report.status, "model_version": report.version})
        run.log_metrics(
            {
                f"psi_{column.name}": column.psi
                for column in report.columns
                if column.psi is not None
            }
        )
        if report.performance is not None:
            run.log_metrics({report.performance.metric: report.performance.current.estimate})
        run.log_reports(folder)


def _metrics(report: DriftReport) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()

    def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"drift_{name}", text, labels, registry=registry)

    gauge("detected", "Whether the data or the model's performance has drifted.").set(
        report.status == "drifted"
    )
    gauge("data_broken", "Whether a column cannot be used.").set(report.status == "broken")
    gauge("rows", "Current rows that were judged.").set(report.rows)
    gauge("last_run_timestamp_seconds", "When the job ended.").set_to_current_time()
    gauge("info", "The version that was judged.", ("model_version",)).labels(report.version).set(1)
    psi = gauge("psi", "Distance of a column from the reference.", ("column",))
    drifted = gauge("column_detected", "Whether a column has drifted.", ("column",))
    missing = gauge("missing_share", "Share of missing values in a column.", ("column",))
    for column in report.columns:
        drifted.labels(column.name).set(column.status == "drifted")
        missing.labels(column.name).set(column.missing)
        if column.psi is not None:
            psi.labels(column.name).set(column.psi)
    if report.performance is not None:
        figure = gauge("performance", "The primary metric on outcomes.", ("metric", "of"))
        figure.labels(report.performance.metric, "current").set(report.performance.current.estimate)
        figure.labels(report.performance.metric, "holdout").set(report.performance.reference)
    return registry


def _typed(frame: pd.DataFrame, numbers: list[str]) -> pd.DataFrame:
    return frame.astype({n: "float64" if n in numbers else "object" for n in frame.columns})
