from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from <<cookiecutter.package_name>> import promotions
from <<cookiecutter.package_name>>.promotions import (
    Action,
    PromotionError,
    PromotionRecord,
    previous_versions,
)
from <<cookiecutter.package_name>>.settings import Settings

HOLD_THE_LOCK = """
import sys, time
from pathlib import Path
from <<cookiecutter.package_name>>.promotions import PromotionRecord
from <<cookiecutter.package_name>>.settings import Settings
with PromotionRecord(Settings(home=Path(sys.argv[1]))).locked():
    print("locked", flush=True)
    time.sleep(60)
"""


def done(record: PromotionRecord, action: Action, version: str) -> None:
    record.settle(record.intend(action, None, version, ""), done=True)


def test_a_move_is_recorded_with_who_when_and_why(settings: Settings) -> None:
    record = PromotionRecord(settings)
    number = record.intend("promote", "1", "2", "better recall")
    (intended,) = record.moves()
    assert intended.state == "intended"
    record.settle(number, done=True)
    (move,) = PromotionRecord(settings).moves()
    assert (move.action, move.from_version, move.to_version) == ("promote", "1", "2")
    assert (move.reason, move.state) == ("better recall", "done")
    assert "@" in move.actor
    assert abs((move.created_at - intended.created_at).total_seconds()) == 0


@pytest.mark.parametrize("table", ["promotions", "promotion_outcomes"])
@pytest.mark.parametrize("change", ["UPDATE {} SET state = 'done'", "DELETE FROM {}"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_database_refuses_changes(
    settings: Settings, request: pytest.FixtureRequest, database: str, table: str, change: str
) -> None:
    if database == "postgresql":
        uri = request.getfixturevalue("postgres").database()
        settings = settings.model_copy(update={"promotion_database": uri})
    record = PromotionRecord(settings)
    done(record, "promote", "1")
    with (
        pytest.raises(sa.exc.DBAPIError, match=f"{table} is append-only"),
        sa.create_engine(settings.promotions_uri).begin() as connection,
    ):
        connection.execute(sa.text(change.format(table)))
    assert [move.state for move in record.moves()] == ["done"]


def test_a_move_is_settled_once(settings: Settings) -> None:
    record = PromotionRecord(settings)
    number = record.intend("promote", None, "1", "")
    record.settle(number, done=True)
    with pytest.raises(sa.exc.IntegrityError):
        record.settle(number, done=False)


def test_a_record_of_an_earlier_release_is_read_on(settings: Settings) -> None:
    promotions.promotions.create(sa.create_engine(settings.promotions_uri))
    with sa.create_engine(settings.promotions_uri).begin() as connection:
        connection.execute(
            promotions.promotions.insert().values(
                model=settings.model_name, action="promote", to_version="1", reason="", actor="me",
                created_at=datetime(2026, 1, 1), state="done",
            )
        )  # fmt: skip
    record = PromotionRecord(settings)
    done(record, "promote", "2")
    assert previous_versions(record.moves()) == ["1", "2"]


def test_the_actor_may_be_named(settings: Settings) -> None:
    record = PromotionRecord(settings.model_copy(update={"actor": "the night shift"}))
    done(record, "promote", "1")
    (move,) = record.moves()
    assert (move.actor, move.settled_by) == ("the night shift", "the night shift")


def test_records_of_several_models_share_a_database(settings: Settings) -> None:
    other = settings.model_copy(update={"model_name": "other"})
    done(PromotionRecord(settings), "promote", "1")
    assert PromotionRecord(other).moves() == []


def test_rolling_back_walks_through_the_promotions(settings: Settings) -> None:
    record = PromotionRecord(settings)
    for version in ("1", "2", "3"):
        done(record, "promote", version)
    assert previous_versions(record.moves()) == ["1", "2", "3"]
    done(record, "rollback", "2")
    assert previous_versions(record.moves()) == ["1", "2"]
    done(record, "rollback", "1")
    assert previous_versions(record.moves()) == ["1"]
    done(record, "promote", "4")
    record.settle(record.intend("promote", "4", "5", "interrupted"), done=False)
    assert previous_versions(record.moves()) == ["1", "4"]


def test_one_holder_at_a_time(settings: Settings) -> None:
    inside: list[int] = []
    most: list[int] = []

    def hold() -> None:
        with PromotionRecord(settings).locked():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=hold) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_a_killed_holder_lets_go(settings: Settings) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(settings.home)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with PromotionRecord(settings).locked():
        assert time.monotonic() - started < 5


def test_waiting_too_long_says_why(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotions, "LOCK_SECONDS", 0.2)
    with (
        PromotionRecord(settings).locked(),
        pytest.raises(PromotionError, match="another promotion holds the lock"),
        PromotionRecord(settings).locked(),
    ):
        pytest.fail("the lock was given twice")


def test_an_error_inside_frees_the_lock(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), PromotionRecord(settings).locked():
        raise RuntimeError
    with PromotionRecord(settings).locked():
        assert (tmp_path / "promotions.db").exists()
