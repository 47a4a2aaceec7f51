from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from <<cookiecutter.package_name>>.experiment import (
    SLOTS,
    Experiment,
    ExperimentError,
    read_experiment,
    slot,
    validated,
    write_experiment,
)

PACKAGE = Experiment.__module__.partition(".")[0]
NOW = datetime(2026, 3, 1)
USERS = [f"user-{number}" for number in range(20_000)]


def described(*weights: str, **changes: Any) -> dict[str, Any]:
    names = ("control", "treatment", "third", "fourth")
    variants = [
        {"name": name, "model": str(number), "weight": weight}
        for number, (name, weight) in enumerate(zip(names, weights, strict=False), start=1)
    ]
    return {"name": "deeper-trees", "variants": variants, **changes}


def experiment(*weights: str, **changes: Any) -> Experiment:
    return validated(described(*weights, **changes))


def changed(**fields: Any) -> dict[str, Any]:
    """A valid description whose second variant has other fields."""
    content = described("0.9", "0.1")
    content["variants"][1] |= fields
    return content


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "experiment.json"
    assert read_experiment(path) is None
    shadow = {"name": "bold", "model": "staging"}
    written = experiment("0.5", "0.3", "0.2", shadow=shadow, salt="s").ramped(
        {"third": Decimal("0.4")}, NOW
    )
    write_experiment(path, written)
    assert read_experiment(path) == written
    assert [file.name for file in tmp_path.iterdir()] == ["experiment.json"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert written.models == ("1", "2", "3", "staging")


def test_weights_are_exact_decimals_however_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "experiment.json"
    content = described("0", "0", "0", "0")
    for variant, weight in zip(content["variants"], (0.1, 0.2, 0.6999, "0.0001"), strict=True):
        variant["weight"] = weight
    path.write_text(json.dumps(content))
    read = read_experiment(path)
    assert read is not None
    assert [read.slots.count(index) for index in range(4)] == [1_000, 2_000, 6_999, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (described("0.9", "0.2"), "the weights add to 1.1, not to 1"),
        (described("0.9", "0.09999"), "variants.1.weight: Input should be a multiple of 0.0001"),
        (described("1.1", "-0.1"), "variants.0.weight: Input should be less than or equal to 1"),
        (described("0.5", "nan"), "variants.1.weight: Input should be a finite number"),
        (changed(name="control"), "variants are named twice: control"),
        (described("1", shadow={"name": "control", "model": "2"}), "named twice: control"),
        (described("1"), "one variant alone is no experiment"),
        (described(), "variants: Tuple should have at least 1 item"),
        (changed(wieght="0.1"), "variants.1.wieght: Extra inputs are not permitted"),
        (described("0.9", "0.1", variant=[]), "variant: Extra inputs are not permitted"),
        (changed(model="../7"), "variants.1.model: String should match pattern"),
        (changed(model=""), "variants.1.model: String should match pattern"),
        (described("0.9", "0.1", name=""), "name: String should match pattern"),
        (described("0.9", "0.1", salt="s" * 65), "salt: String should have at most 64"),
        (changed(ranges=[[9_000, 10_000]]), "must hold each of 10,000 slots once: see 9000"),
        (
            described("0.9", "0.1", history=[{"since": "2026-01-01", "weights": {"control": 1}}]),
            "the weights differ from the newest of `history`",
        ),
        ([], "Input should be an object"),
    ],
)
def test_a_description_that_is_not_valid_is_refused_with_its_reason(
    content: object, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ExperimentError) as error:
        read_experiment(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_ranges_that_do_not_match_the_weights_are_refused() -> None:
    content = experiment("0.9", "0.1").ramped({"treatment": Decimal("0.2")}, NOW).model_dump()
    content["history"] = ()
    for variant, weight in zip(content["variants"], ("0.7", "0.3"), strict=True):
        variant["weight"] = weight
    with pytest.raises(ExperimentError, match="`ranges` do not match the weights"):
        validated(content)


@pytest.mark.parametrize("text", ["", "{", "null", "\udcff"])
def test_a_file_that_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "experiment.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ExperimentError, match="is not valid"):
        read_experiment(path)


NOTES_ROUTER = "split = [hash(user) % 100 < 90 for user in users]"
OURS = (
    f"from {PACKAGE}.experiment import validated; experiment = validated({described('0.9', '0.1')})"
    "; split = [experiment.assign(user).name == 'control' for user in users]"
)


def placed_elsewhere(code: str, seed: str) -> str:
    """Where another process, with a hash seed of its own, places 2,000 users."""
    program = (
        f"users = [f'user-{{n}}' for n in range(2_000)]; {code}"
        "; print(''.join('CT'[not control] for control in split))"
    )
    command = [sys.executable, "-c", program]
    environment = {"PYTHONHASHSEED": seed}
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_every_process_places_a_user_the_same() -> None:
    """Python's hash() of a text is salted by process: a router on it moves a fifth of the users."""
    first, second = (placed_elsewhere(NOTES_ROUTER, seed) for seed in "12")
    assert sum(a != b for a, b in zip(first, second, strict=True)) > 200
    first, second = (placed_elsewhere(OURS, seed) for seed in "12")
    own = experiment("0.9", "0.1")
    assert first == second == "".join(own.assign(u).name[0].upper() for u in USERS[:2_000])


def test_the_places_of_users_are_fixed_for_good() -> None:
    """Of releases too: another hash would move the users of a running experiment."""
    places = [slot(user, b"deeper-trees") for user in ("user-1", "user-2", "Ω", "\ud800")]
    assert places == [8465, 8119, 4965, 99]


def test_users_fill_the_slots_evenly() -> None:
    counts = np.bincount([slot(user, b"s") // 100 for user in USERS], minlength=100)
    assert ((counts - 200) ** 2 / 200).sum() < 160  # chi-square, 99 degrees: p = 1e-4


def test_the_split_is_as_the_weights_say() -> None:
    split = experiment("0.5", "0.3", "0.2")
    counts = Counter(split.assign(user).name for user in USERS)
    expected = {"control": 10_000, "treatment": 6_000, "third": 4_000}
    assert sum((counts[name] - n) ** 2 / n for name, n in expected.items()) < 18.4  # p = 1e-4


def test_experiments_of_different_salts_are_independent() -> None:
    one, other = experiment("0.6", "0.4"), experiment("0.6", "0.4", name="other")
    same = experiment("0.6", "0.4", name="other", salt="deeper-trees")
    table = np.zeros((2, 2))
    for user in USERS:
        first = one.assign(user)
        assert same.assign(user) == first
        table[int(first.name == "control"), int(other.assign(user).name == "control")] += 1
    expected = np.outer(table.sum(1), table.sum(0)) / len(USERS)
    assert ((table - expected) ** 2 / expected).sum() < 15.1  # chi-square, 1 degree: p = 1e-4


def moves(before: Experiment, after: Experiment) -> Counter[tuple[int, int]]:
    pairs = zip(before.slots, after.slots, strict=True)
    return Counter((old, new) for old, new in pairs if old != new)


@pytest.mark.parametrize("seed", range(40))
def test_other_weights_move_the_fewest_users(seed: int) -> None:
    """Only from those that shrink to those that grow, over any number of ramps and variants."""
    random = np.random.default_rng(seed)
    arms = 2 + seed % 3
    now = experiment("1", *["0"] * (arms - 1))
    for _ in range(6):
        cuts = np.sort(random.integers(0, SLOTS + 1, arms - 1))
        shares = np.diff([0, *cuts, SLOTS])
        weights = {
            v.name: Decimal(int(n)) / SLOTS for v, n in zip(now.variants, shares, strict=True)
        }
        after = now.ramped(weights, NOW)
        change = shares - [now.slots.count(index) for index in range(arms)]
        assert [after.slots.count(index) for index in range(arms)] == shares.tolist()
        assert moves(now, after).total() == change[change > 0].sum()
        now = after
    assert len(now.history) == 6


def test_a_ramp_there_and_back_moves_nobody_who_need_not() -> None:
    small = experiment("0.9", "0.1")
    half = small.ramped({"treatment": Decimal("0.5")}, NOW)
    assert set(moves(small, half)) == {(0, 1)}
    again = half.ramped({"treatment": Decimal("0.1")}, NOW)
    assert again.slots == small.slots
    assert half.variants[1].ranges == ((5_000, 10_000),)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"tretment": "0.2"}, "has no variant tretment: it has control, treatment"),
        ({"treatment": "1.2"}, "variants.0.weight: Input should be greater than or equal to 0"),
        ({"control": "0.5"}, "the weights add to 0.6"),
    ],
)
def test_a_ramp_that_makes_no_sense_is_refused(weights: dict[str, str], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        experiment("0.9", "0.1").ramped({n: Decimal(w) for n, w in weights.items()}, NOW)
