"""Score a Parquet file of any size into another, in bounded memory.

A thread reads and arranges rows while another scores and a third writes. Scored rows go to parts
beside the output; a run that was killed goes on after the parts that are complete. The output
appears when all are, in one step.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .bundle import Bundle
from .console import track
from .errors import ProjectError
from .schema import ANSWER_FIELDS, NUMBERS, STRINGS, Blocks, Feature, Signature
from .served_models import PRODUCTION, read_aliases, served_bundle, version_folder
from .settings import Settings

BATCH_ROWS = 32_768
PART_BATCHES = 32
AHEAD = 4  # batches in a queue
PLAN_FILE = "plan"

Item = TypeVar("Item")
Made = TypeVar("Made")


class ScoringError(ProjectError):
    """The input does not fit the model, or the output cannot be written."""


@dataclass(frozen=True)
class Scored:
    """What a run did; ``resumed`` of the rows were scored by a run before it."""

    rows: int
    resumed: int
    model: str


def find_model(settings: Settings, reference: str | None) -> tuple[str, Bundle]:
    """A model by alias or version: from the served folder, else from the registry."""
    wanted = reference or PRODUCTION
    version = read_aliases(settings.served_dir).get(wanted, wanted)
    if version.isdecimal() and version_folder(settings.served_dir, version).exists():
        return version, served_bundle(settings.served_dir, version)
    from .registry import Registry

    registry = Registry(settings)
    number = registry.version(wanted).number
    return number, registry.bundle(number)


def score_file(settings: Settings, source: Path, target: Path, reference: str | None) -> Scored:
    """Score every row of a Parquet file; the target has its other columns and the answers.

    Raises:
        ScoringError: naming the column or row that the model cannot read.
    """
    version, bundle = find_model(settings, reference)
    if target.is_dir() or source.resolve() == target.resolve():
        raise ScoringError(f"{target} cannot be written: name another file")
    with _opened(source) as file, _parts_of(target) as parts:
        _check_columns(file.schema_arrow, bundle.signature)
        _keep_parts_of(parts, _plan(source, version, bundle))
        done = sum(_rows_of(path) for path in _complete(parts))
        batches = _batches(file, done)
        count = -(-(file.metadata.num_rows - done) // BATCH_ROWS)
        scored = _scored(settings, bundle, batches)
        _write_parts(parts, done, track_all(scored, count))
        _assemble(parts, target, _output_schema(file.schema_arrow, bundle.signature))
        return Scored(file.metadata.num_rows, done, version)


def track_all(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Show progress over items whose number is known."""
    iterator = iter(items)
    for _ in track(range(count), "scoring"):
        yield next(iterator)
    if any(True for _ in iterator):
        raise AssertionError("more batches than the file's rows make")


@contextmanager
def _opened(source: Path) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(source)
    except (OSError, pa.ArrowInvalid) as error:
        raise ScoringError(f"{source} cannot be read as Parquet: {error}") from error
    with file:
        yield file


@contextmanager
def _parts_of(target: Path) -> Iterator[Path]:
    """The folder of the output's parts, for this run alone; only a kill leaves it behind."""
    parts = target.with_name(f".{target.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    with (parts / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ScoringError(f"another run writes {target}: wait for it") from error
        try:
            yield parts
        except ScoringError:
            shutil.rmtree(parts)
            raise
        shutil.rmtree(parts)


def _check_columns(schema: pa.Schema, signature: Signature) -> None:
    if missing := [name for name in signature.names if name not in schema.names]:
        raise ScoringError(
            f"the input has no column {', '.join(map(repr, missing))}, which the model reads; it "
            f"has {', '.join(map(repr, schema.names))}"
        )
    for feature in signature.features:
        found = schema.field(feature.name).type
        if not (_is_text(found) if feature.type == "string" else _is_number(found)):
            wanted = "text" if feature.type == "string" else "numbers"
            raise ScoringError(
                f"the column {feature.name!r} holds {found}, the model reads {wanted}"
            )
    if taken := [name for name in ANSWER_FIELDS if name in schema.names]:
        raise ScoringError(f"the input has a column {taken[0]!r} of its own: rename it")


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(test(kind) for test in tests)


def _plan(source: Path, version: str, bundle: Bundle) -> str:
    """What parts belong to: the input as it is and the model."""
    found = source.stat()
    model = hashlib.sha256(bundle.model).hexdigest()
    return f"{source.resolve()} {found.st_size} {found.st_mtime_ns} {version} {model}"


def _keep_parts_of(parts: Path, plan: str) -> None:
    """Remove the parts of another run, and those that are not complete."""
    file = parts / PLAN_FILE
    same = file.exists() and file.read_text(encoding="utf-8") == plan
    for path in parts.glob("*.partial" if same else "*.*"):
        path.unlink()
    if not same:
        partial = parts / f"{PLAN_FILE}.partial"
        partial.write_text(plan, encoding="utf-8")
        partial.replace(file)


def _complete(parts: Path) -> list[Path]:
    return sorted(parts.glob("*.arrow"))


def _rows_of(path: Path) -> int:
    with pa.OSFile(str(path)) as file:
        return int(pa.ipc.open_file(file).schema.metadata[b"rows"])


def _batches(file: pq.ParquetFile, done: int) -> Iterator[pa.Table]:
    """The rows after those that are done, in batches of one size."""
    first, skip = 0, done
    while first < file.num_row_groups and skip >= file.metadata.row_group(first).num_rows:
        skip -= file.metadata.row_group(first).num_rows
        first += 1
    groups = list(range(first, file.num_row_groups))
    if not groups:
        return
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, use_threads=False):
        dropped = min(skip, len(batch))
        skip -= dropped
        waiting.append(batch.slice(dropped))
        rows += len(batch) - dropped
        while rows >= BATCH_ROWS:
            held = pa.Table.from_batches(waiting)
            yield held.slice(0, BATCH_ROWS)
            waiting = held.slice(BATCH_ROWS).to_batches()
            rows -= BATCH_ROWS
    if rows:
        yield pa.Table.from_batches(waiting)


def _scored(settings: Settings, bundle: Bundle, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    scorer = bundle.scorer(settings.scoring_threads or 0)
    signature = bundle.signature

    def arrange(table: pa.Table) -> tuple[pa.Table, Blocks]:
        return table.drop_columns(list(signature.names)), _blocks(table, signature)

    def answer(arranged: tuple[pa.Table, Blocks]) -> tuple[pa.Table, Any]:
        return arranged[0], scorer.scores(arranged[1])

    for rest, scores in _ahead(map(answer, _ahead(map(arrange, batches)))):
        columns = dict(zip(rest.column_names, rest.columns, strict=True))
        columns["prediction"], columns["confidence"] = _answers(scores, signature)
        yield pa.table(columns)


def _ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Iterate in a thread of its own, a few items ahead."""
    queue: Queue[Callable[[], Item] | None] = Queue(AHEAD)
    stopped = Event()

    def put(item: Callable[[], Item] | None) -> None:
        while not stopped.is_set():
            with suppress(Full):
                queue.put(item, timeout=0.1)
                return

    def fill() -> None:
        try:
            for item in items:
                put(lambda item=item: item)  # type: ignore[misc]
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(lambda error=error: _raised(error))  # type: ignore[misc]

    thread = Thread(target=fill, daemon=True)
    thread.start()
    try:
        while (made := queue.get()) is not None:
            yield made()
    finally:
        stopped.set()
        thread.join()


def _raised(error: BaseException) -> Any:
    raise error


def _blocks(table: pa.Table, signature: Signature) -> Blocks:
    for feature in signature.features:
        if nulls := table[feature.name].null_count:
            raise ScoringError(
                f"the column {feature.name!r} has {nulls} empty values among {len(table)} rows, "
                "and the model reads none: fill them in or leave these rows out"
            )
    blocks: Blocks = {}
    if signature.number_names:
        numbers = np.empty((len(table), len(signature.number_names)), np.float32)
        chosen = [feature for feature in signature.features if feature.type != "string"]
        for index, feature in enumerate(chosen):
            numbers[:, index] = _numbers(table[feature.name], feature)
        blocks[NUMBERS] = numbers
    if signature.string_names:
        strings = [
            table[name].cast(pa.string()).to_numpy(zero_copy_only=False)
            for name in signature.string_names
        ]
        blocks[STRINGS] = np.column_stack(strings).astype(object)
    return blocks


def _numbers(column: pa.ChunkedArray, feature: Feature) -> Any:
    if not pa.types.is_floating(column.type):
        column = column.cast(pa.float64(), safe=False)
    with np.errstate(over="ignore"):
        values = column.to_numpy().astype(np.float32)
    bad = ~np.isfinite(values)
    reason = "no number that fits into 32 bits"
    if feature.type == "int" and not bad.any():
        bad, reason = values != np.rint(values), "not whole"
    if bad.any():
        value = column[int(bad.argmax())].as_py()
        raise ScoringError(f"the column {feature.name!r} has the value {value}, which is {reason}")
    return values


def _answers(scores: Any, signature: Signature) -> tuple[Any, Any]:
    if signature.task == "regression":
        return pa.array(scores), pa.nulls(len(scores), pa.float32())
    best = scores.argmax(axis=1)
    classes = pa.array(signature.classes)
    return classes.take(pa.array(best)), pa.array(scores[np.arange(len(scores)), best])


def _output_schema(source: pa.Schema, signature: Signature) -> pa.Schema:
    kept = [field for field in source if field.name not in signature.names]
    answer = pa.array(signature.classes).type if signature.classes else pa.float32()
    return pa.schema([*kept, pa.field("prediction", answer), pa.field("confidence", pa.float32())])


def _write_parts(parts: Path, done: int, tables: Iterator[pa.Table]) -> None:
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if len(held) == PART_BATCHES:
            done += _write_part(parts, done, held)
            held = []
    if held:
        _write_part(parts, done, held)


def _write_part(parts: Path, first: int, tables: list[pa.Table]) -> int:
    table = pa.concat_tables(tables)
    path = parts / f"{first:015}.arrow"
    partial = path.with_suffix(".partial")
    schema = table.schema.with_metadata({b"rows": str(len(table)).encode()})
    options = pa.ipc.IpcWriteOptions(unify_dictionaries=True)
    with (
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_file(file, schema, options=options) as writer,
    ):
        writer.write_table(table.replace_schema_metadata(schema.metadata))
    partial.replace(path)
    return len(table)


def _assemble(parts: Path, target: Path, schema: pa.Schema) -> None:
    partial = parts / f"{target.name}.partial"
    with pq.ParquetWriter(partial, schema, compression="zstd", compression_level=1) as writer:
        for path in _complete(parts):
            with pa.memory_map(str(path)) as file:
                writer.write_table(pa.ipc.open_file(file).read_all().cast(schema))
    partial.replace(target)
