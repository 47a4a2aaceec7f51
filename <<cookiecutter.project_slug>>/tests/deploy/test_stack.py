"""The project's own services of compose.yaml, up together; what they need is started beside them.

PostgreSQL, Redis and an S3 server are this machine's programs, so that no image is fetched.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import boto3
import pytest
import yaml

from ..services import Service, free_port, require_program, running, running_postgres
from .files import BIN, PROJECT, run
from .test_image import BASE, NETWORK, Container, docker_is_ready

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("images")]

NAMES = ("server", "registry-sync", "features", "mlflow", "drift")
PASSWORD = "a-test-password"  # pragma: allowlist secret


class Stack:
    """Services that are up, and commands in containers beside them."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.project = f"test-{ports['server']}"
        self.server = Container("", ports["server"])
        override = folder / "override.yaml"
        override.write_text(overridden(ports), encoding="utf-8")
        self.words = [
            "docker",
            "compose",
            "--project-name",
            self.project,
            "--env-file",
            "/dev/null",
        ]
        self.words += ["--file", str(PROJECT / "compose.yaml"), "--file", str(override)]
        names = ("POSTGRES_PASSWORD", "S3_SECRET_KEY", "REDIS_PASSWORD", "GRAFANA_PASSWORD")
        self.variables = dict.fromkeys(names, PASSWORD) | {"BASE": BASE, "BUILD_NETWORK": NETWORK}

    def compose(self, *words: str, check: bool = True) -> str:
        return run(*self.words, *words, check=check, **self.variables).stdout

    def job(self, command: str) -> str:
        return self.compose("run", "--rm", "--no-deps", "jobs", *command.split())


def overridden(ports: dict[str, int]) -> str:
    """Every service on the host's network, at the ports given."""
    postgres = f"postgresql+psycopg://postgres:{PASSWORD}@127.0.0.1:{ports['postgres']}"
    common = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
        "ML_PROMOTION_DATABASE": f"{postgres}/promotions",
        "ML_FEATURE_REGISTRY": f"{postgres}/features",
        "ML_FEATURE_REDIS": f"127.0.0.1:{ports['redis']},password={PASSWORD}",
        "ML_FEATURE_SERVER": f"http://127.0.0.1:{ports['features']}",
        "ML_DRIFT_PUSHGATEWAY": "",
        "ML_ALERTMANAGER_URL": "",
        "ML_PORT": str(ports["server"]),
        "ML_BOOTSTRAP_RESAMPLES": "40",
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}",
    }
    content = yaml.safe_load((PROJECT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    services = {
        name: {"network_mode": "host", "environment": common, "restart": "no"}
        for name in (*NAMES, "jobs")
    }
    for name, port in (("mlflow", "5000"), ("features", "6566")):
        words = [str(word).replace(port, str(ports[name])) for word in content[name]["command"]]
        services[name]["command"] = [
            f"--backend-store-uri={postgres}/mlflow" if "backend-store" in word else word
            for word in words
        ]
        test = [
            word.replace(port, str(ports[name])) for word in content[name]["healthcheck"]["test"]
        ]
        services[name]["healthcheck"] = {"test": test}
    text = yaml.safe_dump({"services": services})
    for name in ("server", "mlflow"):
        text = text.replace(f"  {name}:\n", f"  {name}:\n    ports: !reset []\n")
    return text


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    docker_is_ready()
    if not NETWORK:
        pytest.skip("TEST_CONTAINER_NETWORK=host: the containers reach this machine's services")
    folder = tmp_path_factory.mktemp("stack")
    ports = {name: free_port() for name in ("server", "mlflow", "features", "redis", "s3")}
    with ExitStack() as started:
        postgres = started.enter_context(running_postgres())
        ports["postgres"] = postgres.service.port
        for statement in (PROJECT / "deploy/compose/databases.sql").read_text("utf-8").splitlines():
            with postgres.connect() as connection:
                connection.execute(statement)  # type: ignore[arg-type, unused-ignore]
        redis = [require_program("redis-server"), "--port", str(ports["redis"]), "--bind"]
        redis += ["127.0.0.1", "--requirepass", PASSWORD, "--save", "", "--dir", str(folder)]
        started.enter_context(running(Service(redis, ports["redis"], folder / "redis.log")))
        moto = [str(BIN / "moto_server"), "--port", str(ports["s3"])]
        started.enter_context(running(Service(moto, ports["s3"], folder / "s3.log")))
        boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{ports['s3']}",
            aws_access_key_id="mlflow",
            aws_secret_access_key=PASSWORD,
            region_name="us-east-1",
        ).create_bucket(Bucket="mlflow")
        stack = Stack(folder, ports)
        started.callback(stack.compose, "down", "--volumes", "--timeout", "30", check=False)
        stack.compose("build", "server", "mlflow")
        up = ("up", "--detach", "--wait", "--wait-timeout", "180", "--no-deps", *NAMES)
        written = stack.compose(*up, check=False)
        states = stack.compose("ps", "--all", "--format", "{{.Service}} {{.State}} {{.Health}}")
        assert states.count("running") == len(NAMES), written + stack.compose("logs")
        yield stack


def test_a_first_model_reaches_the_server(stack: Stack) -> None:
    assert stack.server.ask("GET", "/health")[0] == 503
    stack.job("data simulate --customers 400")
    for command in ("train", "registry register", "registry validate", "registry promote"):
        stack.job(command)
    stack.server.wait_until_ready()
    stack.job("features build")
    stack.job("features materialize")
    user = {"user_id": "c000000007"}
    give_up = time.monotonic() + 60
    while (answer := stack.server.ask("POST", "/predict", user))[0] != 200:
        assert time.monotonic() < give_up, (answer, stack.compose("logs", "features", "server"))
        time.sleep(1)
    assert answer[1]["model_version"] == "1"
    assert "drift" in stack.compose("logs", "drift")
