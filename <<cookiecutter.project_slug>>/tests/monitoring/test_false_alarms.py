"""How often no drift raises an alarm, and how often a planted one is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from <<cookiecutter.package_name>>.bundle import Profile
from <<cookiecutter.package_name>>.monitoring.counting import ColumnCounts, Counts, count
from <<cookiecutter.package_name>>.monitoring.drift import judge_columns
from <<cookiecutter.package_name>>.profiling import number_profile, string_profile
from <<cookiecutter.package_name>>.settings import Settings

NUMBERS, TEXTS = 8, 4
CITIES = np.array(["a", "b", "c", "d", "e", "f"], object)
SHARES = np.array([0.4, 0.25, 0.2, 0.1, 0.04, 0.01])
REFERENCE_ROWS = 5_000
Columns = dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"]
Shift = Callable[[Columns, np.random.Generator], None]


def draw(random: np.random.Generator, *shape: int) -> Columns:
    """Columns of several kinds: bell-shaped, skewed, whole numbers, mostly zero; texts."""
    kinds = [
        lambda: random.normal(0, 1, shape),
        lambda: random.gamma(1.5, 10, shape),
        lambda: random.poisson(3, shape).astype(float),
        lambda: random.exponential(5, shape) * (random.random(shape) < 0.3),
    ]
    columns = {f"number_{i}": kinds[i % len(kinds)]() for i in range(NUMBERS)}
    return columns | {f"text_{i}": random.choice(6, shape, p=SHARES) for i in range(TEXTS)}


def profile_of(columns: Columns) -> Profile:
    numbers = {n: number_profile(pd.Series(v)) for n, v in columns.items() if n[0] == "n"}
    texts = {n: string_profile(pd.Series(CITIES[v])) for n, v in columns.items() if n[0] == "t"}
    return Profile(rows=REFERENCE_ROWS, numbers=numbers, strings=texts)


def days_of(profile: Profile, columns: Columns, rows: int) -> Iterator[Counts]:
    """The counts of each day, computed for all days at once."""
    cells = {}
    for name, values in columns.items():
        if name in profile.numbers:
            edges = profile.numbers[name].edges
            place = np.searchsorted(edges, values.astype(np.float32).astype(float))
            width = len(edges) + 1
        else:
            order = {city: place for place, city in enumerate(profile.strings[name].counts)}
            width = len(order) + 1
            place = np.array([order.get(city, width - 1) for city in [*CITIES, "new"]])[values]
        days = np.arange(len(place))[:, None] * width
        counts = np.bincount((place + days).ravel(), minlength=len(place) * width)
        cells[name] = counts.reshape(-1, width).tolist()
    ends = {"number": (0.0, 1.0), "text": ("a", "b")}
    for day in range(len(next(iter(cells.values())))):
        found = {
            name: ColumnCounts(
                cells=tuple(counts[day]), missing=0, outside=0,
                least=ends[name.partition("_")[0]][0], most=ends[name.partition("_")[0]][1],
            )
            for name, counts in cells.items()
        }  # fmt: skip
        yield Counts(profile="", rows=rows, columns=found)


def alarms(settings: Settings, rows: int, references: int, days: int, shift: Shift | None) -> int:
    """Days on which a column drifts; every reference has its own days."""
    random = np.random.default_rng([11, rows])
    found = 0
    for _ in range(references):
        profile = profile_of(draw(random, REFERENCE_ROWS))
        current = draw(random, days, rows)
        if shift:
            shift(current, random)
        for counts in days_of(profile, current, rows):
            columns = judge_columns(settings, profile, counts)
            found += any(column.status == "drifted" for column in columns)
    return found


def test_the_days_are_counted_as_the_job_counts_them(db) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(0)
    profile = profile_of(draw(random, REFERENCE_ROWS))
    current = draw(random, 2, 400)
    for day, counts in enumerate(days_of(profile, current, 400)):
        frame = pd.DataFrame(
            {n: v[day] if n[0] == "n" else CITIES[v[day]] for n, v in current.items()}
        )
        real = count(db.from_df(frame), profile)
        assert {n: c.cells for n, c in counts.columns.items()} == {
            n: c.cells for n, c in real.columns.items()
        }


@pytest.mark.parametrize("rows", [300, 1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_chance_alone_raises_no_more_alarms_than_the_setting_allows(rows: int) -> None:
    """Without the threshold, which hides what chance does on many rows."""
    allowed = 0.05
    settings = Settings(drift_threshold=0, drift_false_alarms=allowed)
    found = alarms(settings, rows, references=25, days=20, shift=None)
    assert binomtest(found, 500, allowed, alternative="greater").pvalue > 0.05, found
    assert found > 0  # else the allowance is not used, and drift is missed


@pytest.mark.parametrize("rows", [300, 1_000])
def test_as_shipped_alarms_without_drift_are_no_more_than_allowed(rows: int) -> None:
    settings = Settings()
    found = alarms(settings, rows, references=25, days=20, shift=None)
    assert found <= 500 * settings.drift_false_alarms


def move(columns: Columns, _: np.random.Generator) -> None:
    columns["number_0"] = columns["number_0"] + 0.5


def stretch(columns: Columns, _: np.random.Generator) -> None:
    columns["number_0"] = columns["number_0"] * 1.6


def raise_amounts(columns: Columns, _: np.random.Generator) -> None:
    columns["number_1"] = columns["number_1"] * 1.4


def new_category(columns: Columns, random: np.random.Generator) -> None:
    struck = random.random(columns["text_0"].shape) < 0.08
    columns["text_0"] = np.where(struck, 6, columns["text_0"])


def other_shares(columns: Columns, random: np.random.Generator) -> None:
    struck = (random.random(columns["text_0"].shape) < 0.4) & (columns["text_0"] == 0)
    columns["text_0"] = np.where(struck, 3, columns["text_0"])


@pytest.mark.parametrize("rows", [1_000, 10_000])
@pytest.mark.parametrize("shift", [move, stretch, raise_amounts, new_category, other_shares])
def test_a_planted_drift_is_found(shift: Shift, rows: int) -> None:
    days = 200 if rows == 1_000 else 60
    found = alarms(Settings(), rows, references=2, days=days // 2, shift=shift)
    assert binomtest(found, days, 0.95, alternative="greater").pvalue < 0.05, found
