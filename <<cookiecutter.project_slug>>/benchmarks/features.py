"""Time the point-in-time join and the online read of the feature store, beside what is below it.

Every join runs in a process of its own, in turns within each round, on tables of the shape that
`features build` writes. What takes more than 8 GiB or more than the limit of time is stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import redis
import yaml

from <<cookiecutter.package_name>> import data, feature_store, features
from <<cookiecutter.package_name>>.database import connect, identifier, literal, write_parquet
from <<cookiecutter.package_name>>.online_features import FEATURE_SERVICE, FeastInProcess
from <<cookiecutter.package_name>>.settings import Settings

INSTANTS = 10
NOW = "2026-01-01"
MOST_BYTES = 8 * 2**30
RANDOM = {
    "float": "random()",
    "int": "(100 * random())",
    "string": "chr(97 + (9 * random())::INT)",
}
OFFLINE = {
    "this project's": None,
    "Feast's DuckDB": {"type": "duckdb"},
    "Feast's default (Dask)": {"type": "dask"},
}
FLOOR = "as-of join in DuckDB alone"
ONLINE_ENTITIES = 2_000


def main() -> None:
    """Run the rounds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--ttl-days", type=float, help="instead of the ttl of data.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300, help="limit of one join")
    parser.add_argument("--reads", type=int, default=5_000, help="online reads of each kind")
    parser.add_argument("--join", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ttl_days is not None:
        data.TTL = timedelta(days=asked.ttl_days)
    if asked.join:
        print(json.dumps(join(asked.join[0], Path(asked.join[1]))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for rows in asked.rows:
            print(joins(Path(scratch) / str(rows), rows, asked.rounds, asked.seconds), flush=True)
        print(reads(Path(scratch) / "online", asked.reads))
    print(f"{machine()} Medians of {asked.rounds} interleaved rounds.")


def home_with_tables(home: Path, rows: int) -> Settings:
    """A home whose feature table and labels have the shape of a build's."""
    settings = Settings(home=home, fixed_clock=NOW)
    values = ", ".join(
        f"{RANDOM[feature.type]}::{features.COLUMN_TYPES[feature.type]} "
        f"AS {identifier(feature.name)}"
        for feature in data.FEATURES
    )
    with connect(settings) as db:
        for number in range(INSTANTS + 1):
            at = f"{literal(NOW)}::TIMESTAMP - to_days({30 * number})"
            keys = f"range({rows // INSTANTS}) AS keys(n)"
            key = f"format('c{{:09d}}', n) AS {data.KEY}"
            instant = f"SELECT {key}, {at} AS {features.TIMESTAMP}"
            write_parquet(
                db, f"{instant}, {values} FROM {keys}", settings.feature_table / f"{number}.parquet"
            )
            label = f"(n % 2)::INTEGER AS {identifier(data.LABEL)}"
            verb = "INSERT INTO labels" if number > 1 else "CREATE TABLE labels AS"
            if number:
                db.execute(f"{verb} {instant}, {label} FROM {keys}")
        query = f"FROM labels ORDER BY {features.TIMESTAMP}, {data.KEY}"
        write_parquet(db, query, settings.data_dir / features.LABELS_FILE)
    return settings


def joins(home: Path, rows: int, rounds: int, seconds: float) -> str:
    """Each join's time and memory as a table."""
    home_with_tables(home, rows)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (FLOOR, *OFFLINE)}
    for number in range(rounds):
        for name in [*found][:: 1 if number % 2 == 0 else -1]:
            if not any("stopped" in result for result in found[name]):
                found[name].append(limited(name, home, seconds))
    shape = f"{rows:,} rows, ttl {data.TTL.days} days"
    lines = [f"| {shape} | seconds | times the floor | peak GiB | rows back |"]
    lines.append("|---|---|---|---|---|")
    floor = statistics.median(result["seconds"] for result in found[FLOOR])
    for name, results in found.items():
        if stopped := [result["stopped"] for result in results if "stopped" in result]:
            lines.append(f"| {name} | {stopped[0]} | | | |")
            continue
        taken = statistics.median(result["seconds"] for result in results)
        peak = max(result["peak"] for result in results) / 2**30
        back = min(result["rows"] for result in results)
        lines.append(f"| {name} | {taken:.1f} | {taken / floor:.1f} | {peak:.1f} | {back:,} |")
    shutil.rmtree(home)
    return "\n".join([*lines, ""])


def limited(name: str, home: Path, seconds: float) -> dict[str, Any]:
    """One join in a process of its own, ended where it takes too much."""
    command = [sys.executable, __file__, "--join", name, str(home)]
    command += ["--ttl-days", str(data.TTL / timedelta(days=1))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end, peak = time.monotonic() + seconds, 0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        peak = max(peak, resident(status))
        if peak > MOST_BYTES or time.monotonic() > end:
            process.kill()
            process.communicate()
            why = "8 GiB" if peak > MOST_BYTES else f"{seconds:.0f} s"
            return {"stopped": f"more than {why}"}
        time.sleep(0.05)
    printed, errors = process.communicate()
    if process.returncode:
        return {"stopped": errors.strip().splitlines()[-1][:90]}
    return {**json.loads(printed.splitlines()[-1]), "peak": peak}


def resident(status: Path) -> int:
    """Bytes of memory that a process holds now."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


def join(name: str, home: Path) -> dict[str, Any]:
    """The training frame's rows and how long it took, without the imports."""
    settings = Settings(home=home, fixed_clock=NOW)
    if name == FLOOR:
        started = time.perf_counter()
        return {"rows": len(floor(settings)), "seconds": time.perf_counter() - started}
    changed = with_stores(settings, offline_store=OFFLINE[name])
    feature_store.apply(changed)
    store = feature_store.open_store(changed)
    service = store.get_feature_service(FEATURE_SERVICE)
    started = time.perf_counter()
    if OFFLINE[name] is None:
        rows = len(features.training_frame(changed))
    else:
        labels = features.pq.read_table(settings.data_dir / features.LABELS_FILE).to_pandas()
        rows = len(store.get_historical_features(labels, service).to_df())
    return {"rows": rows, "seconds": time.perf_counter() - started}


def with_stores(settings: Settings, **stores: Any) -> Settings:
    """The same with a repo of its own in which other stores are named."""
    repo = Path(tempfile.mkdtemp(dir=settings.home)) / "repo"
    shutil.copytree(settings.feature_repo_dir, repo)
    changed = settings.model_copy(update={"feature_repo": repo})
    path = feature_store.repo_file(changed)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["registry"]["path"] = f"sqlite:///{repo}/registry.db"
    content.update({name: store for name, store in stores.items() if store})
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return changed


def floor(settings: Settings) -> Any:
    """The same frame by one query."""
    names = ", ".join(f"{identifier(f.name)}" for f in data.FEATURES)
    with connect(settings) as db:
        table = db.sql(f"""
            SELECT labels.{data.KEY}, labels.{features.TIMESTAMP}, {names}, {data.LABEL}
            FROM read_parquet({literal(settings.data_dir / features.LABELS_FILE)}) AS labels
            ASOF LEFT JOIN read_parquet({literal(settings.feature_table / "*.parquet")}) AS known
                ON labels.{data.KEY} = known.{data.KEY}
                AND labels.{features.TIMESTAMP} >= known.{features.TIMESTAMP}
            ORDER BY labels.{features.TIMESTAMP}, labels.{data.KEY}
        """).to_arrow_table()
    place = table.column_names.index(data.KEY)
    return table.set_column(place, data.KEY, table[data.KEY].dictionary_encode()).to_pandas()


def reads(home: Path, count: int) -> str:
    """Reading one entity in this process: through Feast, and the bare store below it."""
    settings = home_with_tables(home, ONLINE_ENTITIES * INSTANTS)
    lines = ["| one entity, online | p50 ms | p99 ms |", "|---|---|---|"]
    lines += timed({"Feast on SQLite": feast_read(settings)}, count)
    program = shutil.which("redis-server")
    if program is None:
        return "\n".join([*lines, "| Redis | redis-server is not installed | |", ""])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=home)
    try:
        client = redis.Redis(port=port)
        wait_for(client)
        online = {"type": "redis", "connection_string": f"127.0.0.1:{port}"}
        through_feast = feast_read(with_stores(settings, online_store=online))
        keys = list(client.scan_iter())
        fields = client.hkeys(keys[0])
        bare = {"the same hash by redis-py": lambda n: client.hmget(keys[n % len(keys)], fields)}
        lines += timed({"Feast on Redis": through_feast, **bare}, count)
    finally:
        server.terminate()
        server.wait()
    return "\n".join([*lines, ""])


def wait_for(client: redis.Redis) -> None:
    """Return when Redis answers."""
    for _ in range(100):
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("redis-server did not start")


def feast_read(settings: Settings) -> Callable[[int], object]:
    """A read of the n-th entity, as the server does it, on a filled store."""
    feature_store.apply(settings)
    feature_store.materialize(settings)
    source = FeastInProcess(settings)
    return lambda n: source.read(data.KEY, f"c{n % ONLINE_ENTITIES:09d}")


def timed(kinds: dict[str, Callable[[int], object]], count: int) -> list[str]:
    """Rows of a table: each kind of read, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(count + 50):
        for name, read in kinds.items():
            started = time.perf_counter()
            answer = read(number * 7)
            seconds[name].append(time.perf_counter() - started)
            assert answer
    return [
        f"| {name} | {p50 * 1e3:.2f} | {p99 * 1e3:.2f} |"
        for name, taken in seconds.items()
        for p50, p99 in [np.percentile(taken[50:], [50, 99])]
    ]


def machine() -> str:
    """What the figures were taken on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {system}, Python "
        f"{platform.python_version()}, load {os.getloadavg()[0]:.1f}."
    )


if __name__ == "__main__":
    main()
