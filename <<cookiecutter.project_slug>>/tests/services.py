"""Programs of the operating system that some tests need."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import psycopg
import pytest

START_SECONDS = 30
POSTGRES_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
POSTGRES_USER = "postgres"


def require_program(name: str) -> str:
    """The program's path; without it the test skips, or fails where REQUIRE_SERVICES is set."""
    folders = [*os.get_exec_path(), *map(str, POSTGRES_FOLDERS)]
    path = shutil.which(name, path=os.pathsep.join(folders))
    if path is None:
        missing(f"{name} is not installed")
    return path


def missing(what: str) -> NoReturn:
    """Skip for want of something, or fail where REQUIRE_SERVICES is set."""
    if os.environ.get("REQUIRE_SERVICES"):
        pytest.fail(what)
    pytest.skip(what)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Service:
    """A server program that listens on a port of this machine; it can be stopped and started."""

    command: list[str]
    port: int
    log: Path
    options: dict[str, Any] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGKILL
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def start(
        self, answers: Callable[[], object] | None = None, seconds: float = START_SECONDS
    ) -> None:
        """Start the program and wait until it listens, and until ``answers`` raises no OSError."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **self.options
            )
        give_up = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                if answers:
                    answers()
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > give_up:
                    text = self.log.read_text(errors="replace")
                    raise AssertionError(f"{self.command[0]} did not start\n{text}") from error
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End the program at once; nothing happens where it is not up."""
        if self.process is not None:
            self.process.send_signal(self.stop_signal)
            self.process.wait(START_SECONDS)
            self.process = None


@contextmanager
def running(service: Service) -> Iterator[Service]:
    """The service, started; it is stopped at the end."""
    try:
        service.start()
        yield service
    finally:
        service.stop()


def redis_service(folder: Path) -> Service:
    """An empty Redis that keeps nothing on disk, not yet started."""
    port = free_port()
    command = [require_program("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    return Service(command, port, folder / "redis.log")


@dataclass
class Postgres:
    """A PostgreSQL server in which each caller makes a database of its own."""

    service: Service
    numbers: Iterator[int] = field(default_factory=count)

    def database(self) -> str:
        """The SQLAlchemy address of a new, empty database."""
        name = f"test_{next(self.numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type, unused-ignore]
        return f"postgresql+psycopg://{POSTGRES_USER}@{self.service.address}/{name}"

    def connect(self) -> psycopg.Connection[Any]:
        """A connection to the server's own database."""
        return psycopg.connect(
            host="127.0.0.1", port=self.service.port, user=POSTGRES_USER, autocommit=True
        )


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; where tests run as root, which it refuses, it runs as its own user."""
    postgres, initdb = require_program("postgres"), require_program("initdb")
    as_user = {"user": POSTGRES_USER, "group": POSTGRES_USER, "extra_groups": []}
    options: dict[str, Any] = as_user if os.geteuid() == 0 else {}
    # Another user can't reach into a folder for temporary files that is root's alone.
    reachable = "/var/tmp" if options else None
    with TemporaryDirectory(prefix="postgres-", dir=reachable) as folder:
        if options:
            shutil.chown(folder, POSTGRES_USER, POSTGRES_USER)
        data = f"{folder}/data"
        subprocess.run(
            [initdb, "-D", data, "-U", POSTGRES_USER, "--auth=trust", "--no-sync", "-E", "UTF8",
             "--locale=C", "--no-instructions"],
            check=True, cwd=folder, stdout=subprocess.DEVNULL, **options,
        )  # fmt: skip
        port = free_port()
        command = [postgres, "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
        command += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        options = {**options, "cwd": folder}
        service = Service(command, port, Path(folder) / "log", options, signal.SIGINT)
        server = Postgres(service)
        try:
            service.start(lambda: _answers(server))
            yield server
        finally:
            service.stop()


def _answers(server: Postgres) -> None:
    try:
        server.connect().close()
    except psycopg.OperationalError as error:
        raise ConnectionError(str(error)) from error
