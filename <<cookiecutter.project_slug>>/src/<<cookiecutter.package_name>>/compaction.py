"""The prediction log's segments into Parquet by day; what is too old or to be forgotten, removed.

Every row reaches Parquet exactly once, whatever is killed when: a journal names the closed segments
of a batch before any of its files is written, and says that all are written before a segment is
removed. Who finds a journal finishes its batch, under the same file names. One process works at a
time (``flock``), a second one waits.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .console import track
from .errors import ProjectError
from .prediction_log import (
    DAYS_FOLDER,
    FEEDBACK_FOLDER,
    ROTATE_FILE,
    SEGMENTS_FOLDER,
    FeedbackRecord,
    ModelRecord,
    RowsRecord,
    read_segment,
    segment_files,
)
from .schema import Signature
from .settings import Settings

JOURNAL_FILE = "compaction.json"
LOCK_FILE = "compaction.lock"
PARTIAL = ".partial"
BUFFERED_ROWS = 200_000
SETTLE_SECONDS = 1.0  # until an answered row has reached its segment
ROTATE_WAIT_SECONDS = 15.0
MICROSECONDS = 1_000_000


class LogError(ProjectError):
    """The prediction log is not as it should be."""


@dataclass(frozen=True)
class Compacted:
    """What a compaction did."""

    segments: int = 0
    rows: int = 0
    feedback: int = 0
    damaged_bytes: int = 0
    expired_days: int = 0


@dataclass(frozen=True)
class Forgotten:
    """What was removed of a user."""

    rows: int
    feedback: int
    files: int


class Journal(msgspec.Struct, frozen=True):
    """A batch that is under way."""

    batch: str
    segments: list[str]
    written: bool = False


def compact(settings: Settings, now: bool = False) -> Compacted:
    """Turn closed segments, and those of dead workers, into Parquet; remove expired days.

    Args:
        settings: where the log is and how many days are kept.
        now: ask the workers to close their segments first.
    """
    folder = settings.prediction_log_dir
    with _alone(folder):
        if now:
            _end_open_segments(folder)
        done = _compact(folder)
        return replace(done, expired_days=_expire(folder, settings))


def forget(settings: Settings, user_id: str) -> Forgotten:
    """Remove a user's rows, and the feedback on them, from everything that was logged until now.

    Workers close their segments first. Feedback goes before the rows that lead to it, so that a
    second run finishes what a kill interrupted.

    Raises:
        LogError: a worker does not close its segment.
    """
    folder = settings.prediction_log_dir
    with _alone(folder):
        if held := _end_open_segments(folder):
            raise LogError(
                f"{', '.join(held)} in {folder / SEGMENTS_FOLDER} is still written to: end the "
                "process in its name if it hangs, and forget again (nothing was removed)"
            )
        _compact(folder)
        rows = sorted((folder / DAYS_FOLDER).glob("*/*.parquet"))
        ids = pa.concat_arrays(
            [pa.array([], pa.string()), *(_ids_of(path, user_id) for path in rows)]
        )
        feedback = sorted((folder / FEEDBACK_FOLDER).glob("*/*.parquet")) if len(ids) else []
        outcomes = [_without(path, lambda t: pc.is_in(t["request_id"], ids)) for path in feedback]
        removed = [_without(path, lambda t: pc.equal(t["user_id"], user_id)) for path in rows]
    files = sum(count > 0 for count in (*outcomes, *removed))
    return Forgotten(rows=sum(removed), feedback=sum(outcomes), files=files)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for partial in folder.glob(f"*/*/.*{PARTIAL}"):
            partial.unlink()
        yield


def _compact(folder: Path) -> Compacted:
    done = Compacted()
    journal = folder / JOURNAL_FILE
    if journal.exists():
        done = _finish(folder, msgspec.json.decode(journal.read_bytes(), type=Journal))
    if names := [path.name for path in segment_files(folder) if not _is_open(path)]:
        new = _finish(folder, Journal(f"{time.time_ns():x}", names))
        done = Compacted(
            segments=done.segments + new.segments,
            rows=done.rows + new.rows,
            feedback=done.feedback + new.feedback,
            damaged_bytes=done.damaged_bytes + new.damaged_bytes,
        )
    return done


def _finish(folder: Path, journal: Journal) -> Compacted:
    done = Compacted()
    if not journal.written:
        _save(folder, journal)
        batch = _Batch(folder, journal.batch)
        for name in track(journal.segments, "compacting"):
            batch.add(folder / SEGMENTS_FOLDER / name)
        done = batch.finish()
        _save(folder, msgspec.structs.replace(journal, written=True))
    for name in journal.segments:
        (folder / SEGMENTS_FOLDER / name).unlink(missing_ok=True)
    (folder / JOURNAL_FILE).unlink()
    return done


def _save(folder: Path, journal: Journal) -> None:
    partial = folder / f".{JOURNAL_FILE}{PARTIAL}"
    partial.write_bytes(msgspec.json.encode(journal))
    _replace(partial, folder / JOURNAL_FILE)


class _Batch:
    """A batch's files: one for each day and schema, moved into place when all are complete."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._buffer: dict[tuple[str, pa.Schema], list[pa.Table]] = {}
        self._buffered = 0
        self._writers: dict[Path, pq.ParquetWriter] = {}
        self._done = Compacted()

    def add(self, segment: Path) -> None:
        """Take a segment's rows in; one that somebody removed has none."""
        if not segment.exists():
            return
        signatures: dict[str, Signature] = {}
        rows = feedback = damaged = 0
        for record in read_segment(segment):
            if isinstance(record, int):
                damaged += record
            elif isinstance(record, ModelRecord):
                signatures[record.version] = Signature.model_validate_json(record.signature)
            elif isinstance(record, RowsRecord) and record.model_version not in signatures:
                damaged += len(record.numbers) + len(record.scores)  # what describes them is gone
            elif isinstance(record, RowsRecord):
                self._keep(DAYS_FOLDER, _rows_table(record, signatures[record.model_version]))
                rows += len(record.request_ids)
            else:
                for table in _feedback_tables(record):
                    self._keep(FEEDBACK_FOLDER, table)
                feedback += len(record.request_ids)
        done = self._done
        self._done = Compacted(
            segments=done.segments + 1,
            rows=done.rows + rows,
            feedback=done.feedback + feedback,
            damaged_bytes=done.damaged_bytes + damaged,
        )

    def finish(self) -> Compacted:
        """Write what is left and move the files into place."""
        self._flush()
        for writer in self._writers.values():
            writer.close()
        for path in self._writers:
            _replace(_partial(path), path)
        return self._done

    def _keep(self, kind: str, table: pa.Table) -> None:
        self._buffer.setdefault((kind, table.schema), []).append(table)
        self._buffered += len(table)
        if self._buffered >= BUFFERED_ROWS:
            self._flush()

    def _flush(self) -> None:
        for (kind, schema), tables in self._buffer.items():
            table = pa.concat_tables(tables)
            days = table["at"].cast(pa.int64()).to_numpy() // (86_400 * MICROSECONDS)
            for day in np.unique(days).tolist():
                kept = table.filter(pa.array(days == day))
                self._writer(kind, date(1970, 1, 1) + timedelta(days=day), schema).write(kept)
        self._buffer.clear()
        self._buffered = 0

    def _writer(self, kind: str, day: date, schema: pa.Schema) -> pq.ParquetWriter:
        columns = hashlib.blake2b(str(schema).encode(), digest_size=4).hexdigest()
        path = self._folder / kind / day.isoformat() / f"{self._name}-{columns}.parquet"
        if path not in self._writers:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writers[path] = pq.ParquetWriter(_partial(path), schema, compression="zstd")
        return self._writers[path]


def _rows_table(record: RowsRecord, signature: Signature) -> pa.Table:
    count = len(record.request_ids)
    columns: dict[str, Any] = {
        "request_id": pa.array(record.request_ids, pa.string()),
        "at": _instants(record.at),
        **{
            name: pa.array([getattr(record, name)] * count, pa.string())
            for name in ("model_version", "variant", "experiment")
        },
        "shadow": pa.array([record.shadow] * count, pa.bool_()),
        "user_id": pa.array(record.user_ids, pa.string()),
        "latency_seconds": np.frombuffer(record.latency_seconds, "<f4"),
    }
    numbers = np.frombuffer(record.numbers, "<f4").reshape(count, len(signature.number_names))
    width = len(signature.string_names)
    values: dict[str, Any] = dict(zip(signature.number_names, numbers.T, strict=True))
    for index, name in enumerate(signature.string_names):
        values[name] = pa.array(record.strings[index::width], pa.string())
    columns |= {name: values[name] for name in signature.names}
    columns["prediction"], columns["confidence"] = _answers(record, signature)
    return pa.table(columns)


def _answers(record: RowsRecord, signature: Signature) -> tuple[Any, Any]:
    scores = np.frombuffer(record.scores, "<f4")
    if signature.task == "regression":
        return scores, pa.nulls(len(scores), pa.float32())
    scores = scores.reshape(-1, len(signature.classes))
    best = scores.argmax(axis=1)
    return pa.array(signature.classes).take(pa.array(best)), scores.max(axis=1)


def _feedback_tables(record: FeedbackRecord) -> Iterator[pa.Table]:
    """One table for each type of outcome: models of several tasks may have been served."""
    for kind in (int, float, str):
        chosen = [i for i, outcome in enumerate(record.outcomes) if type(outcome) is kind]
        if chosen:
            yield pa.table(
                {
                    "request_id": pa.array([record.request_ids[i] for i in chosen], pa.string()),
                    "outcome": pa.array([record.outcomes[i] for i in chosen]),
                    "at": _instants(record.at).take(pa.array(chosen)),
                }
            )


def _instants(seconds: bytes) -> pa.Array:
    whole = np.round(np.frombuffer(seconds, "<f8") * MICROSECONDS).astype(np.int64)
    return pa.array(whole).cast(pa.timestamp("us"))


def _is_open(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _end_open_segments(folder: Path) -> list[str]:
    """Have the workers begin new segments; the names of those that stay open all the same."""
    time.sleep(SETTLE_SECONDS)
    held = [path for path in segment_files(folder) if _is_open(path)]
    (folder / ROTATE_FILE).touch()
    give_up = time.monotonic() + ROTATE_WAIT_SECONDS
    while held and time.monotonic() < give_up:
        time.sleep(0.05)
        held = [path for path in held if _is_open(path)]
    return [path.name for path in held]


def _ids_of(path: Path, user_id: str) -> pa.Array:
    found = pq.read_table(path, columns=["request_id"], filters=[("user_id", "=", user_id)])
    return found["request_id"].combine_chunks()


def _without(path: Path, chosen: Callable[[pa.Table], Any]) -> int:
    """Rewrite a file without the chosen rows, if it holds any; how many they were."""
    partial = _partial(path)
    removed = kept = 0
    with pq.ParquetFile(path) as file, pq.ParquetWriter(partial, file.schema_arrow) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            rest = table.filter(pc.invert(pc.fill_null(chosen(table), False)))
            writer.write_table(rest)
            removed += len(table) - len(rest)
            kept += len(rest)
    if removed and kept:
        _replace(partial, path)
    elif removed:
        path.unlink()
    partial.unlink(missing_ok=True)
    return removed


def _expire(folder: Path, settings: Settings) -> int:
    oldest = (settings.as_of - timedelta(days=settings.log_retention_days)).date().isoformat()
    expired = {
        day
        for kind in (DAYS_FOLDER, FEEDBACK_FOLDER)
        for day in (folder / kind).glob("????-??-??")
        if day.name < oldest
    }
    for day in expired:
        shutil.rmtree(day)
    return len({day.name for day in expired})


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}{PARTIAL}")


def _replace(partial: Path, path: Path) -> None:
    """Move a file into place once its content, and then its name, has reached the disk."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
