"""The images, built and run. Needs a container engine and the base image, and takes minutes.

``TEST_BASE_IMAGE`` names another base; ``TEST_CONTAINER_NETWORK=host`` is for engines without a
bridge.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest

from <<cookiecutter.package_name>>.served_models import add_version, write_aliases
from <<cookiecutter.package_name>>.trained_model import BUNDLE_FOLDER

from ..homes import TrainedHome
from ..services import free_port, missing
from .files import PROJECT, SLUG, run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("images")]

README = (PROJECT / "README.md").read_text(encoding="utf-8")
DOCKERFILE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
BASE = os.environ.get(
    "TEST_BASE_IMAGE", re.findall(r"^ARG BASE=(.+)$", DOCKERFILE, re.MULTILINE)[0]
)
NETWORK = os.environ.get("TEST_CONTAINER_NETWORK", "")
MEGABYTE = 1_000_000
USER = "10001:10001"
LOCKED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def docker(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run("docker", *words, check=check)


def build(target: str, *options: str | Path) -> str:
    tag = f"{SLUG}-{target}:test"
    network = ["--network", NETWORK] if NETWORK else []
    arguments = ("--build-arg", f"BASE={BASE}", "--target", target, "--tag", tag)
    docker("build", "--progress", "plain", *network, *arguments, *options, PROJECT)
    return tag


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    docker_is_ready()


def docker_is_ready() -> None:
    """Skip where no engine answers or the base image is not to be had."""
    if shutil.which("docker") is None or docker("info", check=False).returncode:
        missing("no container engine answers `docker info`")
    if docker("image", "inspect", BASE, check=False).returncode:
        pulled = docker("pull", "--quiet", BASE, check=False)
        if pulled.returncode:
            missing(f"the base image {BASE} is not to be had: {pulled.stdout.strip()}")


@pytest.fixture(scope="module")
def server_image() -> str:
    return build("server")


@pytest.fixture(scope="module")
def jobs_image() -> str:
    return build("jobs")


@pytest.fixture
def served(trained_home: TrainedHome, tmp_path: Path) -> Path:
    """A served folder as `registry sync` leaves it, readable by anybody."""
    folder = tmp_path / "served"
    add_version(folder, "3", trained_home.model.folder / BUNDLE_FOLDER)
    write_aliases(folder, {"production": "3"})
    docker_readable(folder)
    return folder


def docker_readable(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


class Container:
    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
            is_json = "json" in answer.getheader("Content-Type", "")
            return answer.status, json.loads(text) if is_json else text
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            try:
                if self.ask("GET", "/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        pytest.fail(docker("logs", self.name).stdout)

    def inspect(self, field: str) -> str:
        return docker("inspect", "--format", f"{{{{{field}}}}}", self.name).stdout.strip()


@contextmanager
def running(image: str, *options: str | Path) -> Iterator[Container]:
    """A server's container with a read-only root and no rights."""
    port = free_port()
    container = Container(f"{SLUG}-test-{port}", port)
    if NETWORK:
        options = (*options, "--network", NETWORK, "--env", f"ML_PORT={port}")
    else:
        options = (*options, "--publish", f"127.0.0.1:{port}:8000")
    docker("run", "--detach", "--name", container.name, *LOCKED, *options, image)
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container.name)


def example(home: TrainedHome) -> list[Any]:
    """One row of the training profile's middle."""
    profile = home.model.bundle.profile
    return [
        profile.numbers[feature.name].edges[0] if feature.name in profile.numbers else "a"
        for feature in home.model.bundle.signature.features
    ]


def size(image: str) -> int:
    return int(docker("image", "inspect", "--format", "{{.Size}}", image).stdout)


def test_the_server_adds_little_to_its_base(server_image: str) -> None:
    assert size(server_image) - size(BASE) <= 220 * MEGABYTE


def test_the_servers_image_holds_no_model_and_nothing_that_trains(server_image: str) -> None:
    script = (
        "import importlib.util as u, pathlib as p;"
        "names = ('sklearn', 'mlflow', 'feast', 'pandas', 'pyarrow', 'evidently', 'kfp', 'uv');"
        "print([n for n in names if u.find_spec(n)], list(p.Path('/').glob('opt/*')))"
    )
    options = ("--rm", *LOCKED, "--network", "none", "--entrypoint", "python")
    found = docker("run", *options, server_image, "-c", script).stdout
    assert found.strip() == "[] [PosixPath('/opt/venv')]"


def test_both_say_who_made_them(server_image: str, jobs_image: str) -> None:
    for image in (server_image, jobs_image):
        config = json.loads(docker("image", "inspect", image).stdout)[0]["Config"]
        assert config["User"] == USER
        labels = config["Labels"]
        assert labels["org.opencontainers.image.title"] == SLUG
        assert labels["org.opencontainers.image.description"]
        assert labels["org.opencontainers.image.revision"]


def test_it_answers_without_rights_and_writes_to_its_volume_only(
    server_image: str, served: Path, trained_home: TrainedHome
) -> None:
    folder = ("--volume", f"{served}:/served:ro", "--env", "ML_SERVING_DIR=/served")
    with running(server_image, *folder) as container:
        container.wait_until_ready()
        status, answer = container.ask("POST", "/predict", {"features": example(trained_home)})
        assert status == 200, answer
        assert answer["model_version"] == "3"
        process = Path(f"/proc/{container.inspect('.State.Pid')}/status").read_text("utf-8")
        assert re.search(r"^Uid:\t10001\b", process, re.MULTILINE)
        assert re.search(r"^CapEff:\t0+$", process, re.MULTILINE)
        changed = docker("diff", container.name).stdout.splitlines()
        assert [line for line in changed if not line.endswith((" /served", " /data"))] == []
        give_up = time.monotonic() + 40
        while container.inspect(".State.Health.Status") != "healthy":
            assert time.monotonic() < give_up, container.inspect("json .State.Health")
            time.sleep(0.5)


def test_it_answers_what_it_accepted_and_then_ends(
    server_image: str, served: Path, trained_home: TrainedHome
) -> None:
    folder = ("--volume", f"{served}:/served:ro", "--env", "ML_SERVING_DIR=/served")
    outcomes: list[int] = []
    row = example(trained_home)

    def keep_asking(container: Container) -> None:
        while True:
            try:
                outcomes.append(container.ask("POST", "/predict", {"features": row})[0])
            except RemoteDisconnected:
                outcomes.append(0)  # accepted and not answered
            except ConnectionError:
                return

    with running(server_image, *folder) as container:
        container.wait_until_ready()
        clients = [threading.Thread(target=keep_asking, args=[container]) for _ in range(4)]
        for client in clients:
            client.start()
        time.sleep(1)
        started = time.monotonic()
        docker("stop", "--time", "25", container.name)
        assert time.monotonic() - started < 15
        for client in clients:
            client.join(timeout=20)
        assert container.inspect(".State.ExitCode") in {"0", "143"}
    assert len(outcomes) > 100
    assert set(outcomes) == {200}


def test_the_readmes_commands_bake_a_model_in_and_serve_it(trained_home: TrainedHome) -> None:
    block = "".join(re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    make, bake, start = (shlex.split(line) for line in block.splitlines())
    here = ["--build-arg", f"BASE={BASE}", *(["--network", NETWORK] if NETWORK else [])]
    assert make == ["make", "images"]
    run(*make, BUILD_OPTIONS=shlex.join(here))
    bundle = f"bundle={trained_home.model.folder / BUNDLE_FOLDER}"
    assert "bundle=build/exported-model" in bake
    words = [bundle if word.startswith("bundle=") else word for word in bake]
    run(*words, *here, "--build-arg", "MODEL_VERSION=7")
    image = start[-1]
    options = ("--rm", *LOCKED, "--publish", "127.0.0.1:8001:8000")
    assert start == ["docker", "run", *options, image]
    with running(image) as container:
        container.wait_until_ready()
        status, answer = container.ask("POST", "/predict", {"features": example(trained_home)})
        assert (status, answer["model_version"]) == (200, "7")


def test_a_damaged_bundle_is_not_baked_in(trained_home: TrainedHome, tmp_path: Path) -> None:
    damaged = tmp_path / "bundle"
    shutil.copytree(trained_home.model.folder / BUNDLE_FOLDER, damaged)
    model = next(damaged.glob("*.onnx"))
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="BundleError"):
        build("server-with-model", "--build-context", f"bundle={damaged}")


def test_jobs_train_register_and_sync_without_rights(jobs_image: str) -> None:
    volume = f"{SLUG}-test-{free_port()}"
    options = (
        "--rm",
        *LOCKED,
        "--network",
        "none",
        "--tmpfs",
        "/tmp",
        "--volume",
        f"{volume}:/data",
    )
    options += ("--env", "ML_BOOTSTRAP_RESAMPLES=40")
    try:
        for command in (
            "data simulate --customers 400",
            "train",
            "registry register",
            "registry validate",
            "registry promote",
            "registry sync",
        ):
            result = docker("run", *options, jobs_image, *command.split())
        assert "production: version 1" in result.stdout
    finally:
        docker("volume", "rm", "--force", volume)


def test_the_sidecar_ends_when_it_is_told_to(jobs_image: str) -> None:
    name = f"{SLUG}-test-{free_port()}"
    options = ("--detach", "--name", name, *LOCKED, "--network", "none", "--tmpfs", "/tmp")
    docker("run", *options, jobs_image, "registry", "sync", "--every", "10")
    try:
        give_up = time.monotonic() + 60
        while "no version" not in docker("logs", name).stdout:
            assert time.monotonic() < give_up, docker("logs", name).stdout
            time.sleep(0.5)
        started = time.monotonic()
        docker("stop", "--time", "25", name)
        assert time.monotonic() - started < 10
    finally:
        docker("rm", "--force", "--volumes", name)
