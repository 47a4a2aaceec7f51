"""Counting rows over a profile's cells: one pass, bounded memory, parts that add up exactly."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..bundle import NumberProfile, Profile, StringProfile
from ..database import identifier, literal
from ..errors import ProjectError
from ..profiling import PREDICTION, number_profile, string_profile
from ..schema import ANSWER_FIELDS, Signature

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

NUMBER_TYPE = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|BOOLEAN|DECIMAL\(.*\)")
STRING_TYPES = ("VARCHAR", "ENUM")
EDGE_ROWS = 200_000


class CountingError(ProjectError):
    """The rows cannot be counted, or the parts do not belong together."""


class ColumnCounts(BaseModel):
    """One column over its profile's cells: a number's bins, or a text's categories and the rest.

    ``outside`` values lie beyond the reference's smallest and largest, or in no category of it.
    """

    model_config = ConfigDict(frozen=True)

    cells: tuple[int, ...]
    missing: int
    outside: int
    least: float | str | None
    most: float | str | None

    def __add__(self, other: ColumnCounts) -> ColumnCounts:
        ends = [end for end in (self.least, other.least) if end is not None]
        tops = [top for top in (self.most, other.most) if top is not None]
        return ColumnCounts(
            cells=tuple(map(sum, zip(self.cells, other.cells, strict=True))),
            missing=self.missing + other.missing,
            outside=self.outside + other.outside,
            least=min(ends, default=None),
            most=max(tops, default=None),
        )


class Counts(BaseModel):
    """All that a verdict needs of the current rows; ``faults`` says why a column is not there."""

    model_config = ConfigDict(frozen=True)

    profile: str
    rows: int
    columns: dict[str, ColumnCounts]
    faults: dict[str, str] = {}

    def write(self, path: Path) -> None:
        """Store the counts as JSON, in one step."""
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(self.model_dump_json(), encoding="utf-8")
        partial.replace(path)


def count(rows: duckdb.DuckDBPyRelation, profile: Profile) -> Counts:
    """Count rows over a profile's cells.

    Columns of the wrong type and missing ones are faults; the model's answers may be missing. A
    column without a value has no type that counts.
    """
    types = dict(zip(rows.columns, map(str, rows.types), strict=True))
    wanted: dict[str, NumberProfile | StringProfile] = {**profile.numbers, **profile.strings}
    faults = {name: fault for name in wanted if (fault := _fault(name, types, profile))}
    empty = _without_a_value(rows, sorted(faults.keys() & types.keys()))
    faults = {name: fault for name, fault in faults.items() if name not in empty}
    names = [name for name in wanted if name in types and name not in faults]
    figures = ", ".join(
        _figures("NULL" if name in empty else identifier(name), types[name], wanted[name])
        for name in names
    )
    [[total, *found]] = rows.aggregate(f"count(*), {figures}" if names else "count(*)").fetchall()
    columns = {
        name: _column(wanted[name], total, found[5 * place : 5 * place + 5])
        for place, name in enumerate(names)
    }
    return Counts(profile=fingerprint(profile), rows=total, columns=columns, faults=faults)


def merge(parts: Sequence[Counts]) -> Counts:
    """Add up the counts of parts, exactly as if all rows had been counted at once.

    Raises:
        CountingError: the parts were counted against different profiles.
    """
    if len({part.profile for part in parts}) != 1:
        raise CountingError(
            "the parts were counted against different profiles: count each against the same version"
        )
    faults = {name: fault for part in parts for name, fault in part.faults.items()}
    everywhere = set.intersection(*(set(part.columns) for part in parts))
    columns = {name: parts[0].columns[name] for name in parts[0].columns if name in everywhere}
    for part in parts[1:]:
        columns = {name: counted + part.columns[name] for name, counted in columns.items()}
    rows = sum(part.rows for part in parts)
    return Counts(profile=parts[0].profile, rows=rows, columns=columns, faults=faults)


def read_counts(path: Path) -> Counts:
    """Read what Counts.write stored.

    Raises:
        CountingError: it is no such file.
    """
    try:
        return Counts.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise CountingError(f"{path} is no part that `drift profile` wrote: {error}") from error


def profile_rows(rows: duckdb.DuckDBPyRelation, signature: Signature, seed: int) -> Profile:
    """Profile any number of reference rows: edges and categories of a sample, counts of all.

    Raises:
        CountingError: a feature is missing or of another type.
    """
    missing = [name for name in signature.names if name not in rows.columns]
    if missing:
        raise CountingError(f"the reference has no column {', '.join(missing)}")
    text = {*signature.string_names, *([PREDICTION] if signature.classes else [])}
    names = [n for n in (*signature.names, *ANSWER_FIELDS) if n in rows.columns]
    sample = sample_rows(rows, names, EDGE_ROWS, seed)
    first = Profile(
        rows=len(sample),
        numbers={n: number_profile(sample[n], n in ANSWER_FIELDS) for n in names if n not in text},
        strings={n: string_profile(sample[n]) for n in names if n in text},
    )
    counts = count(rows, first)
    if counts.faults:
        raise CountingError(f"the reference cannot be used: {counts.faults}")
    return Profile(
        rows=counts.rows,
        numbers={name: _recounted(p, counts.columns[name]) for name, p in first.numbers.items()},
        strings={
            name: StringProfile(
                counts=dict(zip(p.counts, counts.columns[name].cells, strict=False)),
                other=counts.columns[name].cells[-1],
                missing=counts.columns[name].missing,
            )
            for name, p in first.strings.items()
        },
    )


def sample_rows(
    rows: duckdb.DuckDBPyRelation, names: Sequence[str], most: int, seed: int
) -> pd.DataFrame:
    """At most so many rows, drawn at random in one pass."""
    columns = ", ".join(map(identifier, names))
    drawn: pd.DataFrame = rows.query(
        "all_rows",
        f"SELECT {columns} FROM all_rows USING SAMPLE reservoir({most} ROWS) REPEATABLE ({seed})",
    ).df()
    return drawn


def fingerprint(profile: Profile) -> str:
    """What identifies the cells and counts of a profile."""
    return hashlib.sha256(profile.model_dump_json().encode()).hexdigest()


def _fault(name: str, types: dict[str, str], profile: Profile) -> str | None:
    if name not in types:
        return None if name in ANSWER_FIELDS else "the column is missing"
    if name == PREDICTION:
        return None
    if name in profile.numbers and not NUMBER_TYPE.fullmatch(types[name]):
        return f"{types[name]} instead of a number"
    if name in profile.strings and not types[name].startswith(STRING_TYPES):
        return f"{types[name]} instead of text"
    return None


def _without_a_value(rows: duckdb.DuckDBPyRelation, names: Sequence[str]) -> set[str]:
    if not names:
        return set()
    [found] = rows.aggregate(", ".join(f"count({identifier(n)})" for n in names)).fetchall()
    return {name for name, values in zip(names, found, strict=True) if not values}


def _figures(column: str, kind: str, profile: NumberProfile | StringProfile) -> str:
    """Five aggregates: cells, values that count, smallest, largest, and how many lie outside."""
    if isinstance(profile, StringProfile):
        if kind in ("FLOAT", "DOUBLE"):  # whole numbers, where pandas met a missing one
            column = f"TRY_CAST({column} AS BIGINT)"
        value = f"{column}::VARCHAR"
        edges = f"[{', '.join(map(literal, sorted(profile.counts)))}]::VARCHAR[]"
        return f"map_values(histogram_exact({value}, {edges})), {_extent(value)}, 0"
    number = f"TRY_CAST({column} AS FLOAT)"
    value = f"(CASE WHEN isfinite({number}) THEN {number}::DOUBLE END)"
    edges = f"[{', '.join(map(_double, profile.edges))}]::DOUBLE[]"
    outside = "false"
    if profile.least is not None and profile.most is not None:
        outside = f"{value} NOT BETWEEN {_double(profile.least)} AND {_double(profile.most)}"
    return f"map_values(histogram({value}, {edges})), {_extent(value)}, count(*) FILTER ({outside})"


def _double(number: float) -> str:
    """A number as DuckDB reads it to the last bit: without an exponent it would be a decimal."""
    return f"{number:.17e}::DOUBLE"


def _extent(value: str) -> str:
    return f"count({value}), min({value}), max({value})"


def _column(
    profile: NumberProfile | StringProfile,
    rows: int,
    found: Sequence[Any],
) -> ColumnCounts:
    values, known, least, most, outside = found
    if isinstance(profile, NumberProfile):
        cells = _padded(values, len(profile.counts))
    else:
        cells = _padded(values, len(profile.counts) + 1)
        by_name = dict(zip(sorted(profile.counts), cells, strict=False))
        cells = (*(by_name[name] for name in profile.counts), cells[-1])
        outside = 0 if profile.other else cells[-1]
    return ColumnCounts(cells=cells, missing=rows - known, outside=outside, least=least, most=most)


def _padded(values: Sequence[int] | None, length: int) -> tuple[int, ...]:
    found = tuple(values or ())
    return found + (0,) * (length - len(found))


def _recounted(profile: NumberProfile, counts: ColumnCounts) -> NumberProfile:
    return NumberProfile(
        edges=profile.edges,
        counts=counts.cells,
        least=counts.least,
        most=counts.most,
        missing=counts.missing,
    )
