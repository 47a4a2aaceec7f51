from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from <<cookiecutter.package_name>> import compaction
from <<cookiecutter.package_name>>.compaction import LogError, compact, forget
from <<cookiecutter.package_name>>.database import connect
from <<cookiecutter.package_name>>.prediction_log import Feedback, SegmentWriter, read
from <<cookiecutter.package_name>>.settings import Settings

from .logs import BINARY, logged_rows, segments
from .trained import SIGNATURES

DAY = datetime(2026, 1, 31, tzinfo=timezone.utc).timestamp()
USERS = ("ada", "bob", None)

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(compaction, "SETTLE_SECONDS", 0.3)
    return Settings(home=tmp_path, fixed_clock=datetime(2026, 2, 1))


def fill(settings: Settings, writers: int = 2, rows: int = 20) -> list[str]:
    """Closed segments with rows of two days and three users, some with feedback."""
    for number in range(writers):
        writer = SegmentWriter(settings.prediction_log_dir)
        writer.describe("1", BINARY)
        for row in range(rows):
            name, at = f"{number}-{row}", DAY + row * 6_000
            writer.append(logged_rows([name], at=at, user_ids=[USERS[row % 3]]))
            if row % 2:
                writer.append(Feedback(name, 0, at + 1))
                writer.append(Feedback(name, 1, at + 2))
        writer.close()
    return sorted(f"{number}-{row}" for number in range(writers) for row in range(rows))


def logged(settings: Settings, **window: Any) -> list[dict[str, Any]]:
    with connect(settings) as db:
        rows = read(db, settings, **window)
        return [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]


def ids(settings: Settings) -> list[str]:
    return sorted(row["request_id"] for row in logged(settings))


def killed_after(steps: int, settings: Settings, what: str = "compact") -> bool:
    """Run a command that is killed at one of its steps on the disk; whether it was."""
    process = FORK.Process(target=run_until, args=(steps, settings, what))
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


def run_until(steps: int, settings: Settings, what: str) -> None:
    compaction.SETTLE_SECONDS = 0
    compaction.BUFFERED_ROWS = 7
    left = iter(range(steps))
    folder = str(settings.prediction_log_dir)

    def step(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in {"os.rename", "os.remove", "open", "os.mkdir"}
        if writes and folder in str(arguments[0]) and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    if what == "compact":
        compact(settings)
    else:
        forget(settings, what)


def test_rows_become_parquet_by_day_with_their_newest_outcome(settings: Settings) -> None:
    expected = fill(settings)
    done = compact(settings)
    assert (done.segments, done.rows, done.feedback, done.damaged_bytes) == (2, 40, 40, 0)
    assert segments(settings.prediction_log_dir) == []
    days = settings.prediction_log_dir / "days"
    assert sorted(day.name for day in days.iterdir()) == ["2026-01-31", "2026-02-01"]
    rows = logged(settings)
    assert sorted(row["request_id"] for row in rows) == expected
    assert list(rows[0]) == [
        *("request_id", "at", "model_version", "variant", "experiment", "shadow", "user_id"),
        *("latency_seconds", *BINARY.names, "prediction", "confidence", "outcome"),
    ]
    by_id = {row["request_id"]: row for row in rows}
    assert by_id["0-1"]["at"] == datetime(2026, 1, 31, 1, 40)
    assert (by_id["0-1"]["outcome"], by_id["0-2"]["outcome"]) == (1, None)
    assert by_id["0-2"]["user_id"] is None
    window = {"since": datetime(2026, 1, 31, 1, 40), "until": datetime(2026, 1, 31, 5)}
    assert {row["request_id"] for row in logged(settings, **window)} == {"0-1", "0-2", "1-1", "1-2"}


@pytest.mark.parametrize("case", SIGNATURES)
def test_answers_and_features_are_those_of_the_model(settings: Settings, case: str) -> None:
    signature = SIGNATURES[case]
    rows = logged_rows(["a", "b", "c"], signature, at=DAY)
    writer = SegmentWriter(settings.prediction_log_dir)
    writer.describe("1", signature)
    writer.append(rows)
    writer.close()
    compact(settings)
    found = sorted(logged(settings), key=lambda row: row["request_id"])
    blocks = rows.blocks
    for index, row in enumerate(found):
        numbers = [row[name] for name in signature.number_names]
        assert numbers == blocks.get("numbers", np.zeros((3, 0)))[index].tolist()
        strings = [row[name] for name in signature.string_names]
        assert strings == blocks.get("strings", np.zeros((3, 0)))[index].tolist()
        scores = rows.scores[index]
        if signature.classes:
            assert row["prediction"] == signature.classes[scores.argmax()]
            assert row["confidence"] == pytest.approx(scores.max())
        else:
            assert (row["prediction"], row["confidence"]) == (pytest.approx(scores), None)


def test_models_with_other_features_share_the_log(settings: Settings) -> None:
    writer = SegmentWriter(settings.prediction_log_dir)
    for version, case in (("1", "binary"), ("2", "multiclass"), ("3", "regression")):
        writer.describe(version, SIGNATURES[case])
        writer.append(logged_rows([version], SIGNATURES[case], version, at=DAY))
    for outcome, request in ((1, "1"), ("high", "2"), (2.5, "3"), (1, "unknown")):
        writer.append(Feedback(request, outcome, DAY))
    writer.close()
    assert compact(settings).feedback == 4
    by_id = {row["request_id"]: row for row in logged(settings)}
    assert [by_id[key]["outcome"] for key in "123"] == ["1", "high", "2.5"]
    assert by_id["1"]["city"] is None


def test_rows_whose_model_is_damaged_hold_nothing_up(settings: Settings) -> None:
    fill(settings, writers=2, rows=4)
    first, second = segments(settings.prediction_log_dir)
    content = bytearray(first.read_bytes())
    content[content.index(b"buys")] ^= 1
    first.write_bytes(content)
    done = compact(settings)
    assert (done.rows, done.segments) == (4, 2)
    assert done.damaged_bytes > 0
    assert not first.exists()
    assert not second.exists()


def test_nothing_logged_gives_no_rows(settings: Settings) -> None:
    assert compact(settings).rows == 0
    assert logged(settings) == []
    assert forget(settings, "ada").rows == 0


def test_open_segments_wait_unless_asked_for(settings: Settings) -> None:
    writer = SegmentWriter(settings.prediction_log_dir)
    writer.describe("1", BINARY)
    writer.append(logged_rows(["a"], at=DAY))
    while not writer.written:
        time.sleep(0.01)
    assert compact(settings).segments == 0
    assert compact(settings, now=True).rows == 1
    writer.append(logged_rows(["b"], at=DAY))
    writer.close()
    assert compact(settings).rows == 1
    assert ids(settings) == ["a", "b"]


def test_what_a_kill_left_half_written_is_left_out(settings: Settings) -> None:
    fill(settings, writers=1)
    [path] = segments(settings.prediction_log_dir)
    with path.open("ab") as file:
        file.write(b"PLG1 half a record")
    done = compact(settings)
    assert (done.rows, done.damaged_bytes) == (20, 18)


def test_compactions_side_by_side_do_no_harm(settings: Settings) -> None:
    expected = fill(settings, writers=4)
    threads = [threading.Thread(target=compact, args=[settings]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids(settings) == expected


def test_days_that_are_too_old_are_removed(settings: Settings) -> None:
    fill(settings)
    kept = settings.model_copy(
        update={"log_retention_days": 1, "fixed_clock": datetime(2026, 2, 2)}
    )
    assert compact(kept).expired_days == 1
    assert {row["at"].date() for row in logged(settings)} == {datetime(2026, 2, 1).date()}


def test_a_user_is_forgotten_everywhere(settings: Settings) -> None:
    fill(settings)
    compact(settings)
    writer = SegmentWriter(settings.prediction_log_dir)
    writer.describe("1", BINARY)
    writer.append(logged_rows(["open"], at=DAY, user_ids=["ada"]))
    writer.append(logged_rows(["kept"], at=DAY, user_ids=["bob"]))
    writer.append(Feedback("open", 1, DAY))
    done = forget(settings, "ada")
    assert (done.rows, done.feedback) == (15, 13)
    assert {row["user_id"] for row in logged(settings)} == {"bob", None}
    assert "kept" in ids(settings)
    found = b"".join(path.read_bytes() for path in files(settings))
    assert b"ada" not in found
    assert b"bob" in found
    assert forget(settings, "ada").rows == 0
    writer.close()


def test_a_worker_that_hangs_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ROTATE_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(SegmentWriter, "_flush", lambda _: time.sleep(0.1))
    writer = SegmentWriter(settings.prediction_log_dir)
    writer.describe("1", BINARY)
    rows = logged_rows(["a"], user_ids=["ada"])
    assert writer._write([(rows, writer._models["1"])]) is None
    with pytest.raises(LogError, match=f"-{os.getpid()}-.*is still written to"):
        forget(settings, "ada")
    writer.close()


@pytest.mark.slow
def test_a_kill_at_any_step_of_a_compaction_loses_and_repeats_nothing(tmp_path: Path) -> None:
    steps = 0
    while True:
        settings = Settings(home=tmp_path / str(steps), fixed_clock=datetime(2026, 2, 1))
        settings.home.mkdir()
        expected = fill(settings)
        killed = killed_after(steps, settings)
        assert len(ids(settings)) == len(set(ids(settings)))
        compact(settings)
        assert ids(settings) == expected
        assert not list(settings.prediction_log_dir.rglob(".*"))
        if not killed:
            break
        steps += 1
    assert steps > 15


@pytest.mark.slow
def test_a_kill_at_any_step_of_forgetting_is_finished_by_the_next(
    settings: Settings, tmp_path: Path
) -> None:
    steps, killed = 0, True
    while killed:
        home = settings.model_copy(update={"home": tmp_path / str(steps)})
        home.home.mkdir()
        fill(home)
        killed = killed_after(steps, home, "ada")
        forget(home, "ada")
        rows = logged(home)
        assert {row["user_id"] for row in rows} == {"bob", None}
        assert len(rows) == 26
        with connect(home) as db:
            files = home.prediction_log_dir / "feedback" / "*" / "*.parquet"
            kept = db.sql(f"SELECT request_id FROM read_parquet('{files}')").fetchall()
        assert {row[0] for row in kept} <= {row["request_id"] for row in rows}
        steps += 1
    assert steps > 10


@pytest.mark.slow
def test_two_hundred_kills_at_random_lose_and_repeat_nothing(settings: Settings) -> None:
    choose, kills = random.Random(0), 0
    expected: list[str] = []
    while kills < 200:
        expected += log_five(settings, len(expected))
        kills += killed_after(choose.randrange(30), settings)
        assert len(ids(settings)) == len(set(ids(settings)))
    compact(settings)
    assert ids(settings) == sorted(expected)


@pytest.mark.slow
def test_two_hundred_kills_of_forgetting_lose_nobody_else(settings: Settings) -> None:
    choose, kills = random.Random(0), 0
    expected: list[str] = []
    while kills < 200:
        log_five(settings, len(expected), "ada")
        expected += log_five(settings, len(expected), "bob")
        kills += killed_after(choose.randrange(60), settings, "ada")
        found = ids(settings)
        assert len(found) == len(set(found))
        if not kills % 10:
            forget(settings, "ada")
            assert ids(settings) == sorted(expected)
            assert not any(b"ada" in path.read_bytes() for path in files(settings))
    forget(settings, "ada")
    assert ids(settings) == sorted(expected)


def log_five(settings: Settings, first: int, user: str = "eve") -> list[str]:
    """Log five rows of a user, with an outcome each, in a closed segment; their ids."""
    names = [f"{user}-{number}" for number in range(first, first + 5)]
    writer = SegmentWriter(settings.prediction_log_dir)
    writer.describe("1", BINARY)
    writer.append(logged_rows(names, at=DAY, user_ids=[user] * 5))
    for name in names:
        writer.append(Feedback(name, 1, DAY))
    writer.close()
    return names


def files(settings: Settings) -> list[Path]:
    return [path for path in settings.prediction_log_dir.rglob("*") if path.is_file()]
