"""The raw log of purchases: simulate one, or take in a retailer's own.

The log is one Parquet file of ``customer_id`` (text), ``purchased_at`` (UTC) and ``amount``,
ordered by customer and time; ``manifest.json`` beside it says where it came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from .console import track
from .database import connect, identifier, literal, write_parquet
from .errors import ProjectError
from .settings import Settings, utc_now

LOG_FILE = "purchases.parquet"
REJECTED_FILE = "rejected.csv"
SUPPLY_DAYS = 60
SUPPLY_REGULARITY = 60.0
SIMULATED_DAYS = 730
CUSTOMERS_PER_BLOCK = 50_000
MICROSECONDS_A_DAY = 86_400_000_000
LOG_SCHEMA = pa.schema(
    [("customer_id", pa.string()), ("purchased_at", pa.timestamp("us")), ("amount", pa.float64())]
)


class DataError(ProjectError):
    """Data cannot be taken in or is missing; the message says what to change."""


class Manifest(BaseModel):
    """Where the log came from; its ``newest_event`` is the project's now (settings.as_of)."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["simulated", "imported"]
    source: str
    rows: int
    rejected: dict[str, int]
    customers: int
    oldest_event: datetime
    newest_event: datetime
    fingerprint: str


@dataclass(frozen=True)
class ColumnMapping:
    """Which columns of a retailer's file hold what."""

    customer: str
    date: str
    amount: str
    date_format: str | None = None


def log_path(settings: Settings) -> Path:
    """Where the log lies.

    Raises:
        DataError: there is none yet.
    """
    path = settings.data_dir / LOG_FILE
    if not path.exists():
        raise DataError(
            f"no purchases in {settings.data_dir}: run `data simulate` or `data import FILE` first"
        )
    return path


def read_manifest(settings: Settings) -> Manifest:
    """Where the log came from.

    Raises:
        DataError: there is no log yet, or nothing says where it came from.
    """
    log_path(settings)
    if not settings.data_manifest.exists():
        raise DataError(
            f"{settings.data_dir} holds purchases without {settings.data_manifest.name}, as after "
            "an interrupted import: import the file again with --replace"
        )
    return Manifest.model_validate_json(settings.data_manifest.read_text(encoding="utf-8"))


def simulate(
    settings: Settings,
    customers: int,
    seed: int,
    until: date,
    replace: bool,
    shifts: Sequence[date] = (),
) -> Manifest:
    """Write a simulated log.

    Customers follow the Pareto/GGG process (Platzer and Reutterer, Marketing Science 35, 2016):
    each buys at gamma-distributed gaps with a rate and a regularity of its own until it leaves
    after an exponential lifetime. Amounts are lognormal around each customer's own mean.

    With the first shift everybody begins to buy supplies for about SUPPLY_DAYS, so that whoever
    bought lately does not come soon; with the second, old habits return; and so on in turn.

    Args:
        settings: where it is written.
        customers: how many; about ten purchases each.
        seed: the same seed gives the same log.
        until: the day after the last simulated one.
        replace: whether an imported log may be overwritten.
        shifts: the days on which habits change.

    Raises:
        DataError: an imported log is there and may not be replaced, or a shift lies outside.
    """
    _refuse_to_replace(settings, replace)
    first_day = until - timedelta(days=SIMULATED_DAYS)
    if outside := [shift for shift in shifts if not first_day < shift < until]:
        raise DataError(
            f"the shift on {outside[0]} lies outside the simulated days, {first_day} to {until}"
        )
    shift_days = np.array(sorted((shift - first_day).days for shift in shifts), np.float64)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    partial = settings.data_dir / f".{LOG_FILE}.simulated"
    ordered = settings.data_dir / f".{LOG_FILE}.ordered"
    start = np.datetime64(first_day, "us")
    try:
        with pq.ParquetWriter(partial, LOG_SCHEMA) as writer:
            for first, size, block_seed in track(_blocks(customers, seed), "simulating customers"):
                writer.write_table(_simulate_block(first, size, block_seed, start, shift_days))
        with connect(settings) as db:
            query = f"FROM read_parquet({literal(partial)}) ORDER BY customer_id, purchased_at"
            write_parquet(db, query, ordered)
            return _take_in(db, settings, ordered, None, "simulated", f"seed {seed}", {})
    finally:
        partial.unlink(missing_ok=True)
        ordered.unlink(missing_ok=True)


def import_log(
    settings: Settings,
    source: Path,
    mapping: ColumnMapping,
    keep_duplicates: bool,
    replace: bool,
    keep_future: bool = False,
) -> Manifest:
    """Take in a retailer's log from CSV or Parquet.

    A row without a customer, without a date or amount that can be read, with a negative amount,
    dated more than a day ahead, or equal to an earlier row in every column, is set aside in
    ``data/rejected.csv`` with its reason.

    Raises:
        DataError: the file or a column is missing, it cannot be read, or no row is usable; what
            was there before stays.
    """
    if not source.is_file():
        raise DataError(f"{source} is no file")
    _refuse_to_replace(settings, replace)
    ordered = settings.data_dir / f".{LOG_FILE}.imported"
    aside = settings.data_dir / f".{REJECTED_FILE}.imported"
    with connect(settings) as db:
        _read_source(db, source, mapping)
        latest = datetime.max if keep_future else _latest_date(settings)
        _judge_rows(db, mapping, keep_duplicates, latest)
        rejected = _count_rejected(db)
        if not db.execute("SELECT 1 FROM judged WHERE reason IS NULL LIMIT 1").fetchone():
            raise DataError(_nothing_usable(db, source, mapping, rejected))
        query = (
            "SELECT customer_id, purchased_at, amount FROM judged WHERE reason IS NULL "
            "ORDER BY customer_id, purchased_at, amount"
        )
        try:
            write_parquet(db, query, ordered)
            _write_rejected(db, aside)
            return _take_in(db, settings, ordered, aside, "imported", source.name, rejected)
        finally:
            ordered.unlink(missing_ok=True)
            aside.unlink(missing_ok=True)


def _blocks(customers: int, seed: int) -> list[tuple[int, int, np.random.SeedSequence]]:
    starts = range(0, customers, CUSTOMERS_PER_BLOCK)
    seeds = np.random.SeedSequence(seed).spawn(len(starts))
    return [
        (first, min(CUSTOMERS_PER_BLOCK, customers - first), block_seed)
        for first, block_seed in zip(starts, seeds, strict=True)
    ]


def _simulate_block(
    first: int,
    size: int,
    seed: np.random.SeedSequence,
    start: np.datetime64,
    shift_days: NDArray[np.float64],
) -> pa.Table:
    random = np.random.default_rng(seed)
    rate = random.gamma(1.2, 1 / 26, size) + 1e-4
    regularity = 1 + random.gamma(1.5, 1.5, size)
    leaves_after = random.exponential(1 / (random.gamma(1.5, 1 / 450, size) + 1e-5))
    mean_amount = random.lognormal(3.3, 0.6, size)
    now = random.uniform(0, SIMULATED_DAYS * 0.9, size)
    gone_at = np.minimum(now + leaves_after, SIMULATED_DAYS)
    rates = _habits(rate, np.full(size, 1 / SUPPLY_DAYS), shift_days.size)
    regularities = _habits(regularity, np.full(size, SUPPLY_REGULARITY), shift_days.size)
    customers, times = [], []
    active = np.arange(size)
    while active.size:
        customers.append(active)
        times.append(now[active])
        habit = np.searchsorted(shift_days, now[active], side="right")
        shape = regularities[habit, active]
        now[active] += random.gamma(shape, 1 / (shape * rates[habit, active]))
        active = active[now[active] < gone_at[active]]
    customer = np.concatenate(customers)
    day = np.concatenate(times)
    amount = mean_amount[customer] * random.lognormal(0, 0.45, customer.size)
    return pa.table(
        {
            "customer_id": np.char.mod("c%09d", customer + first),
            "purchased_at": start + (day * MICROSECONDS_A_DAY).astype("timedelta64[us]"),
            "amount": np.maximum(np.round(amount, 2), 0.01),
        },
        schema=LOG_SCHEMA,
    )


def _habits(
    own: NDArray[np.float64], supply: NDArray[np.float64], shifts: int
) -> NDArray[np.float64]:
    """A figure of each customer between the shifts, shape (shifts + 1, customers)."""
    return np.stack([supply if n % 2 else own for n in range(shifts + 1)])


def _refuse_to_replace(settings: Settings, replace: bool) -> None:
    if replace or not (settings.data_dir / LOG_FILE).exists():
        return
    manifest = read_manifest(settings)
    if manifest.kind == "imported":
        raise DataError(
            f"{settings.data_dir} holds {manifest.rows:,} purchases imported from "
            f"{manifest.source}: add --replace to overwrite them"
        )


def _read_source(db: duckdb.DuckDBPyConnection, source: Path, mapping: ColumnMapping) -> None:
    if source.suffix.lower() in {".parquet", ".pq"}:
        reader = f"SELECT * FROM read_parquet({literal(source)})"
    else:
        reader = (
            f"SELECT * FROM read_csv({literal(source)}, header = true, all_varchar = true, "
            "store_rejects = true, null_padding = false)"
        )
    try:
        db.execute(f"CREATE TABLE source AS {reader}")
    except duckdb.Error as error:
        raise DataError(
            f"{source} cannot be read as CSV (UTF-8) or Parquet: {str(error).splitlines()[0]}"
        ) from error
    found = _columns(db)
    wanted = (mapping.customer, mapping.date, mapping.amount)
    if missing := [name for name in wanted if name not in found]:
        raise DataError(
            f"{source.name} has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, found))}: name yours with --customer-column, --date-column and "
            "--amount-column"
        )


def _columns(db: duckdb.DuckDBPyConnection) -> list[str]:
    return [str(row[0]) for row in db.execute("DESCRIBE source").fetchall()]


def _latest_date(settings: Settings) -> datetime:
    """A day from now, since zones differ: the newest date would become the project's now."""
    clock = utc_now()
    return max(clock, settings.fixed_clock or clock) + timedelta(days=1)


def _judge_rows(
    db: duckdb.DuckDBPyConnection, mapping: ColumnMapping, keep: bool, latest: datetime
) -> None:
    when = identifier(mapping.date)
    if mapping.date_format:
        when = f"try_strptime({when}::VARCHAR, {literal(mapping.date_format)})"
    # By their names: `source` alone would be the column of that name where the file has one.
    whole = "{" + ", ".join(f"{literal(name)}: {identifier(name)}" for name in _columns(db)) + "}"
    repeated = "false" if keep else f"row_number() OVER (PARTITION BY {whole}) > 1"
    db.execute(f"""
        CREATE TABLE judged AS
        SELECT *, CASE
            WHEN coalesce(customer_id, '') = '' THEN 'no customer'
            WHEN purchased_at IS NULL OR NOT isfinite(purchased_at) THEN 'unreadable date'
            WHEN purchased_at > {literal(latest)}::TIMESTAMP THEN 'date in the future'
            WHEN amount IS NULL OR NOT isfinite(amount) THEN 'unreadable amount'
            WHEN amount < 0 THEN 'negative amount'
            WHEN repeated THEN 'repeated row'
        END AS reason
        FROM (
            SELECT
                trim({identifier(mapping.customer)}::VARCHAR) AS customer_id,
                try_cast(try_cast({when} AS TIMESTAMPTZ) AS TIMESTAMP) AS purchased_at,
                try_cast({identifier(mapping.amount)} AS DOUBLE) AS amount,
                {repeated} AS repeated,
                {whole} AS original
            FROM source)
    """)


def _count_rejected(db: duckdb.DuckDBPyConnection) -> dict[str, int]:
    query = "SELECT reason, count(*) FROM judged WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 1"
    counts = {str(reason): int(rows) for reason, rows in db.execute(query).fetchall()}
    if _keeps_unreadable_lines(db):
        query = "SELECT count(DISTINCT line) FROM reject_errors"
        (lines,) = db.execute(query).fetchone() or (0,)
        if lines:
            counts["unreadable line"] = int(lines)
    return counts


def _keeps_unreadable_lines(db: duckdb.DuckDBPyConnection) -> bool:
    """Whether DuckDB's table of lines that are no record of the file exists: after CSV only."""
    return ("reject_errors",) in db.execute("SHOW TABLES").fetchall()


def _write_rejected(db: duckdb.DuckDBPyConnection, path: Path) -> None:
    rows = "SELECT reason, to_json(original)::VARCHAR AS row FROM judged WHERE reason IS NOT NULL"
    if _keeps_unreadable_lines(db):
        rows += " UNION ALL SELECT DISTINCT 'unreadable line', csv_line FROM reject_errors"
    db.execute(f"COPY ({rows} ORDER BY ALL) TO {literal(path)} (FORMAT csv, HEADER)")


def _nothing_usable(
    db: duckdb.DuckDBPyConnection, source: Path, mapping: ColumnMapping, rejected: dict[str, int]
) -> str:
    reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in rejected.items())
    row = db.execute("SELECT * FROM source LIMIT 1").fetchone()
    message = f"{source.name} has no usable row ({reasons or 'the file is empty'})"
    if "unreadable date" in rejected and row:
        value = row[_columns(db).index(mapping.date)]
        message += f"; a date reads {str(value)!r}: give its form, as in --date-format %d/%m/%Y"
    return message


def _take_in(
    db: duckdb.DuckDBPyConnection,
    settings: Settings,
    log: Path,
    aside: Path | None,
    kind: Literal["simulated", "imported"],
    source: str,
    rejected: dict[str, int],
) -> Manifest:
    """Put a log, the rows set aside and what describes them in place, one right after the other."""
    rows, customers, oldest, newest = db.execute(
        "SELECT count(*), count(DISTINCT customer_id), min(purchased_at), max(purchased_at) "
        f"FROM read_parquet({literal(log)})"
    ).fetchall()[0]
    manifest = Manifest(
        kind=kind,
        source=source,
        rows=rows,
        rejected=rejected,
        customers=customers,
        oldest_event=oldest,
        newest_event=newest,
        fingerprint=_sha256(log),
    )
    partial = settings.data_manifest.with_suffix(".partial")
    partial.write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    log.replace(settings.data_dir / LOG_FILE)
    partial.replace(settings.data_manifest)
    if aside is not None and rejected:
        aside.replace(settings.data_dir / REJECTED_FILE)
    else:
        (settings.data_dir / REJECTED_FILE).unlink(missing_ok=True)
    return manifest


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
