"""50 promotions at once from 8 processes, each killed at a random point, against real servers."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from <<cookiecutter.package_name>>.mlflow_client import connect
from <<cookiecutter.package_name>>.promotions import PromotionError, PromotionRecord
from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.settings import Settings

from .mlflow_server import mlflow_service, running_mlflow
from .services import Postgres

PROMOTIONS, PROCESSES = 50, 8
ROUNDS_OF_A_MODEL = 10
ROUND_SECONDS = 120
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Place:
    """One MLflow server and one database of the record, for many homes."""

    folder: Path
    server: str
    database: str
    model: str = "fought-over-0"

    def settings(self, home: str) -> Settings:
        return Settings(
            home=self.folder / home,
            mlflow_tracking_uri=self.server,
            promotion_database=self.database,
            model_name=self.model,
        )


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path, empty_store: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        store = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
        database = f"sqlite:///{tmp_path / 'promotions.db'}"
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        store, database = postgres.database(), postgres.database()
    with running_mlflow(mlflow_service(tmp_path / "server", store)) as server:
        yield Place(tmp_path, server.uri, database)


def fill(place: Place) -> None:
    client = connect(place.settings("first"))
    client.create_registered_model(place.model)
    for _ in range(PROMOTIONS):
        client.create_model_version(place.model, source="s3://bucket/model")
    Registry(place.settings("first")).promote("1", reason="first", force=True)


def test_no_promotion_is_lost_whatever_is_killed(place: Place) -> None:
    rounds(place, 2, random.Random(0))


@pytest.mark.slow
def test_no_promotion_is_lost_in_many_rounds(place: Place) -> None:
    chance = random.Random(1)
    for number in range(100 // ROUNDS_OF_A_MODEL):
        rounds(replace(place, model=f"fought-over-{number}"), ROUNDS_OF_A_MODEL, chance)


def rounds(place: Place, count: int, chance: random.Random) -> None:
    fill(place)
    reader = FORK.Process(target=read_all_the_time, args=(place,))
    reader.start()
    try:
        for _ in range(count):
            one_round(place, chance)
            assert reader.is_alive(), "a reader saw no production version"
    finally:
        reader.kill()
        reader.join()


def one_round(place: Place, chance: random.Random) -> None:
    before = len(PromotionRecord(place.settings("judge")).moves())
    numbers = [str(number) for number in range(1, PROMOTIONS + 1)]
    chance.shuffle(numbers)
    shares = {f"home-{i}": numbers[i::PROCESSES] for i in range(PROCESSES)}
    for name in shares:
        acknowledged(place, name).unlink(missing_ok=True)
    working = {name: start(place, name, share) for name, share in shares.items()}
    begun = time.monotonic()
    kills = sorted((chance.uniform(0.1, 2.0), name) for name in shares)
    for after, name in kills:
        time.sleep(max(0.0, begun + after - time.monotonic()))
        working[name].kill()
        working[name].join()
        left = [number for number in shares[name] if number not in told(place, name)]
        working[name] = start(place, name, left)
    for process in working.values():
        process.join(ROUND_SECONDS)
        assert process.exitcode == 0
    judge(place, before)


def judge(place: Place, before: int) -> None:
    registry = Registry(place.settings("judge"))
    with registry._moving():
        pass
    moves = registry.history()[before - 1 :]
    assert {move.state for move in moves} <= {"done", "undone"}
    done = [move for move in moves if move.state == "done"]
    assert {move.to_version for move in done} == {str(n) for n in range(1, PROMOTIONS + 1)}
    assert [later.from_version for _, later in pairwise(done)] == [
        earlier.to_version for earlier, _ in pairwise(done)
    ]
    production = [v.number for v in registry.versions() if "production" in v.aliases]
    assert production == [done[-1].to_version]


def start(place: Place, name: str, share: list[str]) -> BaseProcess:
    process = FORK.Process(target=promote_all, args=(place, name, share))
    process.start()
    return process


def promote_all(place: Place, name: str, share: list[str]) -> None:
    registry = Registry(place.settings(name))
    with acknowledged(place, name).open("ab", buffering=0) as file:
        for number in share:
            try:
                registry.promote(number, reason=f"of {name}, {os.getpid()}", force=True)
            except PromotionError as error:
                if "in production already" not in str(error):
                    raise
            file.write(f"{number}\n".encode())


def acknowledged(place: Place, name: str) -> Path:
    return place.folder / f"{name}.done"


def told(place: Place, name: str) -> list[str]:
    path = acknowledged(place, name)
    return path.read_text().splitlines() if path.exists() else []


def read_all_the_time(place: Place) -> None:
    client = connect(place.settings("reader"))
    while True:
        assert int(client.get_registered_model(place.model).aliases["production"])
        time.sleep(0.1)
