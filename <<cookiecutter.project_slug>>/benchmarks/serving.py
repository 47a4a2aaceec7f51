"""Hold the model server beside its peers: one forest, one worker each, the same rotating rows.

Each round asks every server in turn, so that whatever else the machine does meets all alike. The
FastAPI route that does nothing runs twice: how far it is from itself says what a ratio is worth.
Needs wrk.
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
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from <<cookiecutter.package_name>>.bundle import (
    Bundle,
    Interval,
    Metadata,
    read_bundle,
    write_bundle,
)
from <<cookiecutter.package_name>>.export import to_onnx
from <<cookiecutter.package_name>>.profiling import profile
from <<cookiecutter.package_name>>.schema import NUMBERS, Feature, Signature
from <<cookiecutter.package_name>>.served_models import PRODUCTION, add_version, write_aliases
from <<cookiecutter.package_name>>.settings import PACKAGE

FEATURES = 10
KEY = "a-key-of-the-benchmark"
NOTHING = "FastAPI route that does nothing"
OURS = "this server"
TWO_WORKERS = f"{OURS}, two workers, as many connections each"
# Measured on 2 cores at 16 connections with the same forest (2026-11); not run here.
QUOTED = {
    "MLServer, ONNX, tuned (quoted)": 1_621,
    "BentoML, ONNX, tuned (quoted)": 616,
    "Ray Serve, ONNX (quoted)": 173,
}

DO_NOTHING = """
from fastapi import FastAPI
from pydantic import BaseModel
class Asked(BaseModel):
    features: list[float]
class Answer(BaseModel):
    prediction: int
    confidence: float
app = FastAPI()
@app.post("/predict", response_model=Answer)
async def predict(asked: Asked):
    return Answer(prediction=1, confidence=0.9)
"""
PLAIN_ONNX = """
import numpy, onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession("model.onnx", options)
class Asked(BaseModel):
    features: list[float]
class Answer(BaseModel):
    prediction: int
    confidence: float
app = FastAPI()
@app.post("/predict", response_model=Answer)
async def predict(asked: Asked):
    rows = numpy.array([asked.features], numpy.float32)
    scores = session.run(None, {"numbers": rows})[-1][0]
    best = int(scores.argmax())
    return Answer(prediction=best, confidence=float(scores[best]))
"""
HANDBOOK = """
import joblib, numpy
from fastapi import FastAPI
from pydantic import BaseModel
model = joblib.load("model.joblib")
class Asked(BaseModel):
    features: list[float]
class Answer(BaseModel):
    prediction: float
    confidence: float
app = FastAPI()
@app.post("/predict", response_model=Answer)
async def predict(asked: Asked):
    rows = numpy.array(asked.features).reshape(1, -1)
    prediction = model.predict(rows)[0]
    return Answer(prediction=float(prediction), confidence=model.predict_proba(rows).max())
"""
LOAD = """
local bodies, next_body = {}, 0
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-API-Key"] = os.getenv("KEY")
request = function()
  next_body = next_body % #bodies + 1
  return wrk.format(nil, os.getenv("ADDRESS"), nil, bodies[next_body])
end
done = function(summary, latency)
  local errors = summary.errors
  print(string.format('RESULT {"requests": %d, "seconds": %f, "p99": %f, "failed": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(99) / 1e3, errors.status
    + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass
class Server:
    """A contender: how it is started and asked, and what was measured."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    path: str = "/predict"
    wrapped: bool = False
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    workers: int = 1
    runs: dict[int, list[dict[str, float]]] = field(default_factory=dict)

    def median(self, connections: int, figure: str) -> float:
        """The median of a figure over the rounds."""
        return statistics.median(run[figure] for run in self.runs[connections])


def main() -> None:
    """Run the rounds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--only", nargs="+", help="names of servers begin so")
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle = make_models(folder)
        wanted = tuple(asked.only or [""])
        servers = [server for server in contenders(folder) if server.name.startswith(wanted)]
        with ExitStack() as stack:
            for server in servers:
                stack.enter_context(started(server, folder))
            for number in range(asked.rounds):
                for server in servers[:: 1 if number % 2 == 0 else -1]:
                    for connections in (16, 1):
                        measure(server, folder, connections, asked.seconds)
            print(table(servers, asked.rounds))
            ours = [server for server in servers if server.name == OURS]
            if ours:
                print(batches(ours[0], bundle))
                print(probes(ours[0]))
    print(f"\n{machine()} Medians of {asked.rounds} interleaved rounds.")


def make_models(folder: Path) -> Bundle:
    """The same forest as a bundle in production, an ONNX file, joblib and two MLflow models."""
    import joblib

    random = np.random.default_rng(7)
    names = [f"f{number}" for number in range(FEATURES)]
    rows = pd.DataFrame(random.normal(size=(5_000, FEATURES)).astype(np.float32), columns=names)
    labels = (rows.sum(axis=1) + random.normal(size=len(rows)) > 0).astype(int)
    forest = RandomForestClassifier(100, max_depth=10, random_state=7).fit(rows, labels)
    features = tuple(Feature(name=name) for name in names)
    signature = Signature(task="binary", label="label", features=features, classes=(0, 1))
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    metadata = Metadata.model_construct(
        model_name="forest",
        key="key",
        signature=signature,
        created_at=now,
        as_of=now,
        estimator="RandomForestClassifier",
        parameters={},
        primary_metric="roc_auc",
        metrics={},
        baseline_metrics={},
        gain_over_baseline=Interval(estimate=0, low=0, high=0),
        onnx_difference=0.0,
        data_fingerprint="",
        git_commit=None,
        run=None,
        packages={},
    )
    model = to_onnx(forest, signature)
    bundle = Bundle(model=model, metadata=metadata, profile=profile(signature, rows))
    write_bundle(folder / "bundle", bundle)
    add_version(folder / "served", "1", folder / "bundle")
    write_aliases(folder / "served", {PRODUCTION: "1"})
    (folder / "model.onnx").write_bytes(model)
    joblib.dump(forest, folder / "model.joblib")
    mlflow.onnx.save_model(onnx.load_from_string(model), folder / "mlflow-onnx")
    mlflow.sklearn.save_model(forest, folder / "mlflow-sklearn", serialization_format="cloudpickle")
    sent = random.normal(size=(200, FEATURES)).round(4).tolist()
    bodies = [json.dumps({"features": row}) for row in sent]
    wrapped = [json.dumps({"inputs": {NUMBERS: [row]}}) for row in sent]
    listed = [json.dumps({"inputs": [row]}) for row in sent]
    for name, lines in (("features", bodies), ("mlflow-onnx", wrapped), ("mlflow-sklearn", listed)):
        (folder / f"{name}.txt").write_text("\n".join(lines))
    (folder / "load.lua").write_text(LOAD)
    for name, code in (("nothing", DO_NOTHING), ("plain_onnx", PLAIN_ONNX), ("handbook", HANDBOOK)):
        (folder / f"{name}.py").write_text(code)
    return read_bundle(folder / "bundle")


def contenders(folder: Path) -> list[Server]:
    """Every server, in its shipped settings."""
    uvicorn = [sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "warning"]
    ours = [sys.executable, "-m", PACKAGE, "serve"]
    home = {"ML_HOME": str(folder)}
    mlflow_serve = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    return [
        Server(NOTHING, [*uvicorn, "nothing:app"]),
        Server(f"{NOTHING}, again", [*uvicorn, "nothing:app"]),
        Server(OURS, ours, home),
        Server(f"{OURS}, without the log", ours, {**home, "ML_LOG_PREDICTIONS": "false"}),
        Server(f"{OURS}, with an API key", ours, {**home, "ML_API_KEYS": KEY}),
        Server(TWO_WORKERS, ours, {**home, "ML_WORKERS": "2"}, workers=2),
        Server("plain FastAPI with ONNX Runtime", [*uvicorn, "plain_onnx:app"]),
        Server("the hand-books' server", [*uvicorn, "handbook:app"]),
        *(
            Server(
                f"mlflow models serve, {flavor}",
                [*mlflow_serve, "--workers", "1", "--model-uri", f"mlflow-{flavor}"],
                path="/invocations",
            )
            for flavor in ("onnx", "sklearn")
        ),
    ]


@contextmanager
def started(server: Server, folder: Path) -> Iterator[None]:
    """Start a server on a free port and wait until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server.port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **server.environment}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["ML_PORT"] = str(server.port)
    arguments = [] if PACKAGE in server.command else ["--port", str(server.port)]
    with (folder / f"{server.port}.log").open("wb") as log:
        server.process = subprocess.Popen(
            [*server.command, *arguments], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            body = bodies_of(server, folder).read_text().splitlines()[0].encode()
            wait_for(server, body, folder / f"{server.port}.log")
            yield
        finally:
            server.process.terminate()
            server.process.wait()


def bodies_of(server: Server, folder: Path) -> Path:
    """The file with the bodies in the form that a server reads."""
    kind = server.name.replace("mlflow models serve, ", "mlflow-")
    return folder / f"{kind if kind.startswith('mlflow-') else 'features'}.txt"


def wait_for(server: Server, body: bytes, log: Path, seconds: float = 60) -> None:
    """Ask until there is an answer."""
    assert server.process is not None
    end = time.monotonic() + seconds
    while True:
        try:
            post(server, body)
        except (urllib.error.URLError, OSError):
            if time.monotonic() > end or server.process.poll() is not None:
                sys.exit(f"{server.name} does not start:\n{log.read_text()}")
            time.sleep(0.1)
        else:
            return


def post(server: Server, body: bytes) -> bytes:
    """Ask once."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{server.path}",
        body,
        {"Content-Type": "application/json", "X-API-Key": KEY},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        content: bytes = answer.read()
    return content


def measure(server: Server, folder: Path, connections: int, seconds: int) -> None:
    """Send load for so many seconds and keep what it showed."""
    assert server.process is not None
    environment = {
        **os.environ,
        "BODIES": str(bodies_of(server, folder)),
        "KEY": KEY,
        "ADDRESS": server.path,
    }
    address = f"http://127.0.0.1:{server.port}"
    sent_over = connections * (server.workers if connections > 1 else 1)
    used = cpu_seconds(server.process.pid)
    output = subprocess.run(
        ["wrk", "-t1", f"-c{sent_over}", f"-d{seconds}s", "--timeout=30s", "-sload.lua", address],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    used = cpu_seconds(server.process.pid) - used
    [line] = [line for line in output.splitlines() if line.startswith("RESULT")]
    found = json.loads(line.removeprefix("RESULT "))
    if found["failed"]:
        sys.exit(f"{server.name}: {found['failed']:.0f} requests failed")
    run = {
        "rate": found["requests"] / found["seconds"],
        "p99": found["p99"],
        "cpu": used / found["requests"] * 1e6,
    }
    server.runs.setdefault(connections, []).append(run)


def cpu_seconds(pid: int) -> float:
    """What a process and its descendants have used."""
    parents: dict[int, tuple[int, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks = int(fields[11]) + int(fields[12])
        parents[int(path.parent.name)] = int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")

    def total(of: int) -> float:
        children = [child for child, (parent, _) in parents.items() if parent == of]
        return parents[of][1] + sum(map(total, children))

    return total(pid)


def table(servers: list[Server], rounds: int) -> str:
    """Rates, latencies and CPU, and the ratios to the route that does nothing in each round."""
    lines = ["| server | requests/s, 16 connections | times the route that does nothing | p99 ms |"]
    lines[0] += " CPU µs a request | requests/s, 1 connection | times |"
    lines.append("|---|---|---|---|---|---|---|")
    reference = servers[0]
    for server in servers:
        ratios: dict[int, str] = {}
        for connections in (16, 1):
            found = [
                run["rate"] / other["rate"]
                for run, other in zip(
                    server.runs[connections], reference.runs[connections], strict=True
                )
            ]
            spread = f" ({min(found):.2f}-{max(found):.2f})" if rounds > 1 else ""
            ratios[connections] = f"{statistics.median(found):.2f}{spread}"
        lines.append(
            f"| {server.name} | {server.median(16, 'rate'):,.0f} | {ratios[16]} "
            f"| {server.median(16, 'p99'):.1f} | {server.median(16, 'cpu'):.0f} "
            f"| {server.median(1, 'rate'):,.0f} | {ratios[1]} |"
        )
    lines += [f"| {name} | {rate:,} | | | | | |" for name, rate in QUOTED.items()]
    return "\n".join(lines)


def batches(server: Server, bundle: Bundle, repeats: int = 100) -> str:
    """A batch of 1,000 rows beside ONNX Runtime's own time on them, in turns."""
    rows = np.random.default_rng(1).normal(size=(1_000, FEATURES)).astype(np.float32)
    listed = rows.astype(float).round(4).tolist()
    named = [dict(zip(bundle.signature.names, row, strict=True)) for row in listed]
    forms: Mapping[str, bytes] = {
        "lists": json.dumps({"instances": listed}).encode(),
        "objects": json.dumps({"instances": named}).encode(),
        "one row": json.dumps({"features": listed[0]}).encode(),
    }
    scorer = bundle.scorer()
    times: dict[str, list[float]] = {name: [] for name in ("ONNX Runtime alone", *forms)}
    for _ in range(repeats):
        began = time.perf_counter()
        scorer.scores({NUMBERS: rows})
        times["ONNX Runtime alone"].append(time.perf_counter() - began)
        for name, body in forms.items():
            began = time.perf_counter()
            post(server, body)
            times[name].append(time.perf_counter() - began)
    found = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    lines = ["", "| 1,000 rows | ms | less the handling of one row over HTTP |", "|---|---|---|"]
    for name in ("ONNX Runtime alone", "lists", "objects"):
        own = f"{found[name] - found['one row']:.2f}" if name in forms else ""
        lines.append(f"| {name} | {found[name]:.2f} | {own} |")
    return "\n".join(lines)


def probes(server: Server, seconds: float = 4) -> str:
    """How long ``GET /live`` takes while two clients send batches of 1,000 rows."""
    rows = np.random.default_rng(2).normal(size=(1_000, FEATURES)).round(4).tolist()
    body = json.dumps({"instances": rows}).encode()
    end = time.monotonic() + seconds
    sent = [0, 0]

    def send(client: int) -> None:
        while time.monotonic() < end:
            post(server, body)
            sent[client] += 1

    clients = [threading.Thread(target=send, args=(client,)) for client in range(2)]
    for client in clients:
        client.start()
    times = []
    while time.monotonic() < end:
        began = time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/live", timeout=10) as answer:
            answer.read()
        times.append(time.perf_counter() - began)
        time.sleep(0.002)
    for client in clients:
        client.join()
    middle, most = (1e3 * np.quantile(times, share) for share in (0.5, 0.99))
    return (
        f"\n`GET /live` while {sum(sent) / seconds:.0f} such batches a second are answered: "
        f"median {middle:.1f} ms, p99 {most:.1f} ms."
    )


def machine() -> str:
    """What this ran on."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}."


if __name__ == "__main__":
    main()
