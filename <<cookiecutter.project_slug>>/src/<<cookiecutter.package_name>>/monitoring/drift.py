"""The drift job: current rows against the rows that the model in production was judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from .. import data
from ..bundle import Bundle, NumberProfile, Profile, StringProfile
from ..database import connect, literal
from ..errors import ProjectError
from ..prediction_log import logged_days, read, segment_files
from ..profiling import PREDICTION
from ..schema import ANSWER_FIELDS
from ..settings import Settings
from .counting import (
    ColumnCounts,
    CountingError,
    Counts,
    count,
    fingerprint,
    merge,
    profile_rows,
    sample_rows,
)
from .distance import chance, common_cells, stability_index
from .performance import Performance, measure_performance

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

ColumnStatus = Literal["steady", "drifted", "broken"]
Status = Literal["steady", "drifted", "broken", "too few rows"]
SHOWN_LENGTH = 40


class DriftError(ProjectError):
    """There is nothing to compare."""


class ColumnVerdict(BaseModel):
    """One column's answer; ``missing`` and ``outside`` are shares of the current rows."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["number", "text"]
    status: ColumnStatus
    psi: float | None = None
    p_value: float | None = None
    missing: float = 0.0
    outside: float = 0.0
    note: str = ""


class DriftReport(BaseModel):
    """One run of the job, as ``drift.json`` holds it."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    model_name: str
    version: str
    as_of: datetime
    source: str
    status: Status
    reasons: tuple[str, ...] = ()
    rows: int
    reference_rows: int
    threshold: float
    columns: tuple[ColumnVerdict, ...] = ()
    performance: Performance | None = None
    sample_rows: int = 0

    @property
    def drifted(self) -> list[str]:
        """The names of the drifted columns, the farthest first."""
        found = [column for column in self.columns if column.status == "drifted"]
        return [column.name for column in sorted(found, key=lambda c: -(c.psi or 0))]


@dataclass(frozen=True)
class Reference:
    """A version, and the profile that current rows are held against."""

    version: str
    bundle: Bundle
    profile: Profile


def judge(
    settings: Settings,
    reference: Reference,
    counts: Counts,
    source: str,
    performance: Performance | None = None,
) -> DriftReport:
    """Turn counts into the verdict of each column and of the whole."""
    columns: tuple[ColumnVerdict, ...] = ()
    if counts.rows >= settings.drift_minimum_rows:
        columns = judge_columns(settings, reference.profile, counts)
    status, reasons = _conclude(settings, counts.rows, columns, performance)
    return DriftReport(
        model_name=settings.model_name,
        version=reference.version,
        as_of=settings.as_of,
        source=source,
        status=status,
        reasons=reasons,
        rows=counts.rows,
        reference_rows=reference.profile.rows,
        threshold=settings.drift_threshold,
        columns=columns,
        performance=performance,
    )


def judge_columns(
    settings: Settings, profile: Profile, counts: Counts
) -> tuple[ColumnVerdict, ...]:
    """Judge each column; the share of false alarms is divided among them (Bonferroni)."""
    level = settings.drift_false_alarms / max(len(counts.columns), 1)
    profiles: dict[str, NumberProfile | StringProfile] = {**profile.numbers, **profile.strings}
    verdicts = []
    for name, expected in profiles.items():
        if name in counts.columns:
            verdicts.append(
                _judge_column(settings, level, name, expected, counts.columns[name], counts.rows)
            )
        elif name in counts.faults:
            kind = _kind(expected)
            verdicts.append(
                ColumnVerdict(name=name, kind=kind, status="broken", note=counts.faults[name])
            )
    return tuple(verdicts)


def _judge_column(
    settings: Settings,
    level: float,
    name: str,
    expected: NumberProfile | StringProfile,
    found: ColumnCounts,
    rows: int,
) -> ColumnVerdict:
    before = (
        expected.counts
        if isinstance(expected, NumberProfile)
        else (*expected.counts.values(), expected.other)
    )
    verdict = ColumnVerdict(
        name=name,
        kind=_kind(expected),
        status="steady",
        missing=found.missing / rows,
        outside=found.outside / rows,
    )
    if found.missing == rows:
        return _changed(verdict, status="broken", note="every value is missing")
    if not sum(before):
        return _changed(verdict, status="broken", note="the reference has no value")
    reference, current = common_cells(before, found.cells)
    psi, p_value = stability_index(reference, current), chance(reference, current)
    verdict = _changed(verdict, psi=psi, p_value=p_value)
    usual = expected.missing / (expected.missing + sum(before))
    if name not in ANSWER_FIELDS and verdict.missing > usual + settings.drift_missing_share:
        note = f"{verdict.missing:.1%} of the values are missing, {usual:.1%} in the reference"
        return _changed(verdict, status="broken", note=note)
    if psi < settings.drift_threshold or p_value > level:
        return verdict
    if found.least == found.most and name not in ANSWER_FIELDS:
        note = f"every value is {str(found.least)[:SHOWN_LENGTH]!r}"
        return _changed(verdict, status="broken", note=note)
    return _changed(verdict, status="drifted")


def _conclude(
    settings: Settings,
    rows: int,
    columns: Sequence[ColumnVerdict],
    performance: Performance | None,
) -> tuple[Status, tuple[str, ...]]:
    if rows < settings.drift_minimum_rows:
        return "too few rows", (f"{rows:,} rows, {settings.drift_minimum_rows:,} are needed",)
    if broken := [column for column in columns if column.status == "broken"]:
        return "broken", tuple(f"{column.name}: {column.note}" for column in broken)
    drifted = [column.name for column in columns if column.status == "drifted"]
    reasons = []
    if drifted and len(drifted) >= settings.drift_share * len(columns):
        reasons.append(f"{len(drifted)} of {len(columns)} columns have drifted")
    if PREDICTION in drifted:
        reasons.append("the predictions have drifted")
    if performance is not None and performance.fallen:
        reasons.append(f"the model has become worse: {performance}")
    return ("drifted" if reasons else "steady"), tuple(reasons)


def compare(
    settings: Settings, reference: Reference, file: str | None = None
) -> tuple[DriftReport, pd.DataFrame | None]:
    """Judge the current rows, and the model where outcomes have come back.

    Args:
        settings: thresholds and windows.
        reference: what to compare with.
        file: the current rows, see ``parquet_rows``; default: the prediction log's window.

    Returns:
        The report, and a sample of the columns that could be counted, if there are enough rows.

    Raises:
        DriftError: the file cannot be read.
    """
    since = settings.as_of - timedelta(days=settings.drift_window_days)
    with connect(settings) as db:
        if file is not None:
            rows = outcomes = parquet_rows(db, file)
        else:
            rows = logged_rows(db, settings, reference.version, since)
            outcomes = logged_rows(db, settings, reference.version, since - data.HORIZON)
        counts = count(rows, reference.profile)
        performance = measure_performance(settings, reference.bundle, outcomes)
        source = file or f"the prediction log since {since:%Y-%m-%d %H:%M}"
        report = judge(settings, reference, counts, source, performance)
        if file is None and report.status == "too few rows":
            reasons = (*report.reasons, where_rows_are(settings))
            report = report.model_copy(update={"reasons": reasons})
        names, most = list(counts.columns), settings.drift_sample_rows
        sample = sample_rows(rows, names, most, settings.seed) if report.columns and names else None
    return report.model_copy(update={"sample_rows": 0 if sample is None else len(sample)}), sample


def compare_parts(settings: Settings, reference: Reference, parts: Sequence[Counts]) -> DriftReport:
    """Judge rows that were counted elsewhere, part by part.

    Raises:
        CountingError: the parts do not belong together or to this reference.
    """
    counts = merge(parts)
    if counts.profile != fingerprint(reference.profile):
        raise CountingError(
            f"the parts were counted against another profile than version {reference.version}'s"
        )
    return judge(settings, reference, counts, f"{len(parts)} parts")


def reference_of(settings: Settings, reference: str, file: str | None = None) -> Reference:
    """A version of the registry with its profile, or with the profile of other rows.

    Raises:
        RegistryError: there is no such version.
        DriftError: the file cannot be read.
    """
    from ..registry import Registry

    registry = Registry(settings)
    version, bundle = registry.version(reference).number, registry.bundle(reference)
    if file is None:
        return Reference(version, bundle, bundle.profile)
    with connect(settings) as db:
        rows = parquet_rows(db, file)
        return Reference(version, bundle, profile_rows(rows, bundle.signature, settings.seed))


def parquet_rows(db: duckdb.DuckDBPyConnection, file: str) -> duckdb.DuckDBPyRelation:
    """The rows of a Parquet file, of a folder of such, or of an s3:// address, as a stream.

    Raises:
        DriftError: it is not there, or no Parquet.
    """
    import duckdb
    import pyarrow as pa
    from pyarrow.dataset import dataset

    try:
        if "://" not in file and not Path(file).is_dir():
            return db.sql(f"FROM read_parquet({literal(file)})")
        return db.from_arrow(dataset(file, format="parquet"))
    except (OSError, pa.ArrowInvalid, duckdb.Error) as error:
        raise DriftError(f"{file} cannot be read as Parquet: {error}") from error


def where_rows_are(settings: Settings) -> str:
    """Where the prediction log's rows are, for whoever misses them in the window."""
    folder = settings.prediction_log_dir
    days, waiting = logged_days(folder), len(segment_files(folder))
    held = f"the log holds rows of {days[0]} to {days[-1]}" if days else "the log holds no rows"
    if waiting:
        held += f", {waiting} segments wait for `log compact --now`"
    return f"{held}; now is {settings.as_of:%Y-%m-%d %H:%M} (ML_AS_OF, or the data's newest event)"


def logged_rows(
    db: duckdb.DuckDBPyConnection, settings: Settings, version: str, since: datetime
) -> duckdb.DuckDBPyRelation:
    """What a version answered to clients since an instant, with the outcomes that came back.

    The day that begins now counts: a server whose clock was set stamps its rows from now on.
    """
    until = settings.as_of + timedelta(days=1)
    rows = read(db, settings, since, until)
    return rows.filter(f"model_version = {literal(version)} AND NOT shadow")


def _kind(profile: NumberProfile | StringProfile) -> Literal["number", "text"]:
    return "number" if isinstance(profile, NumberProfile) else "text"


def _changed(verdict: ColumnVerdict, **changes: object) -> ColumnVerdict:
    return verdict.model_copy(update=changes)
