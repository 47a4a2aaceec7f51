"""The prediction log: what the server answered, and what came true.

Each worker of the server appends to segments; ``log compact`` (compaction.py) turns what they hold
into Parquet by day::

    segments/NAME.segment       frames of one worker, which locks the file as long as it writes
    days/2026-01-31/*.parquet   answered rows
    feedback/2026-01-31/*.parquet
    rotate                      workers begin a new segment whenever this file changes

A frame is MAGIC, length, CRC-32 and a msgpack record. A segment explains itself: the signature of a
model stands before its first rows. Whatever a kill or a full disk leaves half-written fails its
checksum, and the rest is read.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from .schema import NUMBERS, STRINGS, Blocks, ClassLabel, Signature
from .settings import Settings

if TYPE_CHECKING:
    import duckdb

SEGMENTS_FOLDER = "segments"
DAYS_FOLDER = "days"
FEEDBACK_FOLDER = "feedback"
ROTATE_FILE = "rotate"
SUFFIX = ".segment"

MAGIC = b"PLG1"
HEADER = struct.Struct("<4sII")  # magic, length, CRC-32 of the record
FLUSH_SECONDS = 0.2  # with the time that a write takes, what a kill can lose
MOST_QUEUED_BYTES = 32 * 2**20
ROTATE_BYTES = 32 * 2**20
ROW_BYTES = 256  # a row's ids and scores, roughly

EMPTY_COLUMNS = (
    "'' AS request_id, NULL::TIMESTAMP AS \"at\", '' AS model_version, '' AS variant, "
    "'' AS experiment, false AS shadow, '' AS user_id, 0::FLOAT AS latency_seconds, "
    "'' AS prediction, 0::FLOAT AS confidence, '' AS outcome"
)

Outcome = ClassLabel | float
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """Answered rows of one model version and variant; nobody changes the arrays any more."""

    model_version: str
    variant: str
    experiment: str
    shadow: bool
    request_ids: Sequence[str]
    user_ids: Sequence[str | None]
    at: NDArray[np.float64]
    latency_seconds: NDArray[np.float32]
    blocks: Blocks
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.request_ids)


@dataclass(frozen=True, slots=True)
class Feedback:
    """What came true of a request."""

    request_id: str
    outcome: Outcome
    at: float

    def __len__(self) -> int:
        return 1


class ModelRecord(msgspec.Struct, tag="model", array_like=True, frozen=True):
    """What a model reads and answers: a Signature as JSON."""

    version: str
    signature: str


class RowsRecord(msgspec.Struct, tag="rows", array_like=True, frozen=True):
    """Answered rows; arrays are little-endian bytes, row after row."""

    model_version: str
    variant: str
    experiment: str
    shadow: bool
    request_ids: list[str]
    user_ids: list[str | None]
    at: bytes
    latency_seconds: bytes
    numbers: bytes
    strings: list[str]
    scores: bytes


class FeedbackRecord(msgspec.Struct, tag="feedback", array_like=True, frozen=True):
    """Outcomes in the order in which they came."""

    request_ids: list[str]
    outcomes: list[int | float | str]
    at: bytes


Record = ModelRecord | RowsRecord | FeedbackRecord
_Item = tuple[LoggedRows | Feedback, ModelRecord | None]


class SegmentWriter:
    """Takes rows from any thread, and writes them from one of its own.

    ``append`` never waits. Rows are dropped, counted, while the queue is full or the disk refuses
    them; writing goes on as soon as it can. One process has one writer.
    """

    def __init__(
        self,
        folder: Path,
        rotate_seconds: float = 300,
        rotate_bytes: int = ROTATE_BYTES,
        most_queued_bytes: int = MOST_QUEUED_BYTES,
    ) -> None:
        self.written = 0
        self.dropped = 0
        self._folder = folder
        self._rotate_seconds = rotate_seconds
        self._rotate_bytes = rotate_bytes
        self._most_queued_bytes = most_queued_bytes
        self._models: dict[str, ModelRecord] = {}
        self._lock = Lock()
        self._queue: list[tuple[_Item, int]] = []
        self._queued_bytes = 0
        self._failing = False
        self._segment: _Segment | None = None
        self._closing = Event()
        self._thread = Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def describe(self, version: str, signature: Signature) -> None:
        """Name a model before its first rows."""
        self._models[version] = ModelRecord(version, signature.model_dump_json())

    def append(self, rows: LoggedRows | Feedback) -> bool:
        """Queue rows.

        Returns:
            Whether there was room for them.
        """
        size = _size(rows)
        model = None if isinstance(rows, Feedback) else self._models[rows.model_version]
        with self._lock:
            if self._closing.is_set() or self._queued_bytes + size > self._most_queued_bytes:
                self.dropped += len(rows)
                return False
            self._queued_bytes += size
            self._queue.append(((rows, model), size))
        return True

    def close(self) -> None:
        """Write what is queued and close the segment."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            self._flush()
        self._flush()
        self._end_segment()

    def _flush(self) -> None:
        with self._lock:
            queue, self._queue = self._queue, []
        failure = self._write([item for item, _ in queue])
        if queue:
            rows = sum(len(item) for (item, _), _ in queue)
            with self._lock:
                self._queued_bytes -= sum(size for _, size in queue)
                self.dropped += rows if failure else 0
                self.written += 0 if failure else rows
            if self._failing and not failure:
                logger.warning("the prediction log works again; %s rows were lost", self.dropped)
        if failure and not self._failing:
            logger.error("the prediction log fails, rows are dropped", exc_info=failure)
        self._failing = bool(failure or (self._failing and not queue))

    def _write(self, items: list[_Item]) -> Exception | None:
        try:
            if items:
                if self._segment is None or self._segment.is_gone():
                    self._end_segment()
                    self._segment = _Segment(self._folder)
                self._segment.write(_merged(items))
            if self._segment and self._segment.is_due(self._rotate_seconds, self._rotate_bytes):
                self._end_segment()
        except Exception as error:  # whatever it is, the server goes on answering
            return error
        return None

    def _end_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment:
            segment.close()


class _Segment:
    """An open segment file, locked until it is closed."""

    def __init__(self, folder: Path) -> None:
        self._rotate_file = folder / ROTATE_FILE
        self._asked = _modified(self._rotate_file)
        self._opened = time.monotonic()
        self._models: dict[str, ModelRecord] = {}
        self._length = 0
        segments = folder / SEGMENTS_FOLDER
        segments.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():x}-{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        hidden = segments / f".{name}"
        self._file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            hidden.rename(segments / name)  # from here on it looks abandoned when not locked
        except BaseException:
            os.close(self._file)
            hidden.unlink(missing_ok=True)
            raise

    def write(self, records: Iterable[Record]) -> None:
        """Append all of the records or, where that fails, none; a model's only if it is new."""
        frames = []
        models = dict(self._models)
        for record in records:
            if isinstance(record, ModelRecord):
                if models.get(record.version) == record:
                    continue
                models[record.version] = record
            frames.append(_frame(record))
        content = memoryview(b"".join(frames))
        end = self._length + len(content)
        try:
            while content:
                content = content[os.write(self._file, content) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._length)
                os.lseek(self._file, self._length, os.SEEK_SET)
            raise
        self._length = end
        self._models = models

    def is_due(self, seconds: float, size: int) -> bool:
        """Whether it is old or large enough to be closed, or that was asked for."""
        return (
            self._length >= size
            or time.monotonic() - self._opened >= seconds
            or _modified(self._rotate_file) != self._asked
        )

    def is_gone(self) -> bool:
        """Whether somebody removed the file."""
        return os.fstat(self._file).st_nlink == 0

    def close(self) -> None:
        """Let others have it."""
        os.close(self._file)


def read_segment(path: Path) -> Iterator[Record | int]:
    """A segment's records, and the sizes of the pieces between them that are no intact frame."""
    decoder = msgspec.msgpack.Decoder(Record)
    content = path.read_bytes()
    start = 0
    while start < len(content):
        record, end = _record_at(content, start)
        if record is None:
            found = content.find(MAGIC, start + 1)
            end = found if found >= 0 else len(content)
            yield end - start
        else:
            yield decoder.decode(record)
        start = end


def read(
    db: duckdb.DuckDBPyConnection,
    settings: Settings,
    since: datetime | None = None,
    until: datetime | None = None,
) -> duckdb.DuckDBPyRelation:
    """Compacted rows from ``since`` on and before ``until``, with their newest outcome.

    What ``log compact`` has not seen yet is not among them. Columns: request_id, "at" (UTC),
    model_version, variant, experiment, shadow, user_id, latency_seconds, the features, prediction,
    confidence, outcome (null where none came). Without a row there are no feature columns.
    """
    from .database import literal

    def files(folder: str, first: str = "", last: str = "9999-99-99") -> str:
        days = (settings.prediction_log_dir / folder).glob("*/[!.]*.parquet")
        found = sorted(path for path in days if first <= path.parent.name <= last)
        return f"[{', '.join(map(literal, found))}]" if found else ""

    first, last = since or datetime.min, until or datetime.max
    rows = files(DAYS_FOLDER, first.date().isoformat(), last.date().isoformat())
    if not rows:
        return db.sql(f"SELECT {EMPTY_COLUMNS} WHERE false")
    feedback = files(FEEDBACK_FOLDER)
    outcomes = (
        'SELECT request_id, arg_max(outcome, "at") AS outcome '
        f"FROM read_parquet({feedback}, union_by_name = true) GROUP BY request_id"
        if feedback
        else "SELECT NULL::VARCHAR AS request_id, NULL AS outcome WHERE false"
    )
    return db.sql(f"""
        SELECT logged.*, outcomes.outcome
        FROM read_parquet({rows}, union_by_name = true) AS logged
        LEFT JOIN ({outcomes}) AS outcomes USING (request_id)
        WHERE "at" >= {literal(first)}::TIMESTAMP AND "at" < {literal(last)}::TIMESTAMP
    """)


def newest_answer(settings: Settings) -> datetime | None:
    """When the newest row was answered (UTC), whether ``log compact`` has seen it or not."""
    from .database import connect, literal

    folder = settings.prediction_log_dir
    found = [
        datetime.fromtimestamp(np.frombuffer(record.at, "<f8").max(), timezone.utc)
        for path in segment_files(folder)
        for record in read_segment(path)
        if isinstance(record, RowsRecord) and record.at
    ]
    instants = [instant.replace(tzinfo=None) for instant in found]
    if days := logged_days(folder):
        newest = literal(folder / DAYS_FOLDER / days[-1] / "[!.]*.parquet")
        with connect(settings) as db:
            instants += db.execute(f'SELECT max("at") FROM read_parquet({newest})').fetchall()[0]
    return max(instants, default=None)


def segment_files(folder: Path) -> list[Path]:
    """The log's segments, which ``log compact`` has not seen yet."""
    return sorted((folder / SEGMENTS_FOLDER).glob(f"[!.]*{SUFFIX}"))


def logged_days(folder: Path) -> list[str]:
    """The days of which there are compacted rows, as 2026-01-31, the oldest first."""
    return sorted({path.parent.name for path in (folder / DAYS_FOLDER).glob("*/[!.]*.parquet")})


def _record_at(content: bytes, start: int) -> tuple[memoryview | None, int]:
    if start + HEADER.size > len(content):
        return None, start
    magic, length, checksum = HEADER.unpack_from(content, start)
    end = start + HEADER.size + length
    record = memoryview(content)[start + HEADER.size : end]
    intact = magic == MAGIC and len(record) == length and zlib.crc32(record) == checksum
    return (record if intact else None), end


def _frame(record: Record) -> bytes:
    content = msgspec.msgpack.encode(record)
    return HEADER.pack(MAGIC, len(content), zlib.crc32(content)) + content


def _merged(items: list[_Item]) -> Iterator[Record]:
    """One record for all rows of a model, variant and experiment; one for all feedback."""
    groups: dict[tuple[ModelRecord, str, str, bool], list[LoggedRows]] = {}
    feedback: list[Feedback] = []
    for item, model in items:
        if isinstance(item, Feedback):
            feedback.append(item)
        elif model:
            key = (model, item.variant, item.experiment, item.shadow)
            groups.setdefault(key, []).append(item)
    for (model, variant, experiment, shadow), group in groups.items():
        yield model
        yield RowsRecord(
            model_version=model.version,
            variant=variant,
            experiment=experiment,
            shadow=shadow,
            request_ids=[request_id for rows in group for request_id in rows.request_ids],
            user_ids=[user_id for rows in group for user_id in rows.user_ids],
            at=b"".join(rows.at.astype("<f8").tobytes() for rows in group),
            latency_seconds=_floats(rows.latency_seconds for rows in group),
            numbers=_floats(rows.blocks[NUMBERS] for rows in group if NUMBERS in rows.blocks),
            strings=[
                value
                for rows in group
                if STRINGS in rows.blocks
                for value in rows.blocks[STRINGS].ravel().tolist()
            ],
            scores=_floats(rows.scores for rows in group),
        )
    if feedback:
        yield FeedbackRecord(
            [one.request_id for one in feedback],
            [one.outcome for one in feedback],
            np.array([one.at for one in feedback], "<f8").tobytes(),
        )


def _floats(arrays: Iterable[NDArray[np.float32]]) -> bytes:
    return b"".join(array.astype("<f4").tobytes() for array in arrays)


def _size(rows: LoggedRows | Feedback) -> int:
    size = len(rows) * ROW_BYTES
    if isinstance(rows, Feedback):
        return size
    size += sum(block.nbytes for block in rows.blocks.values())
    return size + sum(map(len, rows.blocks[STRINGS].flat) if STRINGS in rows.blocks else ())


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
