from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..services import missing
from .files import PROJECT, load, run

PASSWORDS = ("POSTGRES_PASSWORD", "S3_SECRET_KEY", "REDIS_PASSWORD", "GRAFANA_PASSWORD")


@pytest.fixture(scope="module")
def compose() -> list[str]:
    docker = shutil.which("docker")
    if docker and run(docker, "compose", "version", check=False).returncode == 0:
        words = [docker, "compose"]
    elif alone := shutil.which("docker-compose"):
        words = [alone]
    else:
        missing("Docker Compose is not installed")
    return [*words, "--file", str(PROJECT / "compose.yaml"), "--env-file", "/dev/null"]


@pytest.fixture(scope="module")
def services(compose: list[str]) -> dict[str, Any]:
    given = dict.fromkeys(PASSWORDS, "a-test-password")
    text = run(*compose, "--profile", "*", "config", **given).stdout
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


@pytest.mark.parametrize("missing", PASSWORDS)
def test_nothing_starts_without_its_password(missing: str, compose: list[str]) -> None:
    given = {name: "" if name == missing else "a-test-password" for name in PASSWORDS}
    result = run(*compose, "config", "--quiet", check=False, **given)
    assert result.returncode != 0
    assert f"required variable {missing}" in result.stdout


def test_every_port_is_open_to_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_own_images_run_without_rights(services: dict[str, Any]) -> None:
    own = [s for s in services.values() if "build" in s]
    assert len(own) == 6
    for service in own:
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_who_waits_for_whom(services: dict[str, Any]) -> None:
    for service in services.values():
        for name, waits in service.get("depends_on", {}).items():
            if waits["condition"] == "service_healthy":
                assert "healthcheck" in services[name], name
    assert services["mlflow"]["depends_on"].keys() == {"postgres", "s3"}


def test_passwords_are_made_once_and_only_for_this_user(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    # As an editor may save it: without a newline at the end, and readable for everybody.
    (tmp_path / ".env").write_text("ML_SEED=8\nREDIS_PASSWORD=mine", encoding="utf-8")
    (tmp_path / ".env").chmod(0o644)
    for _ in range(2):
        subprocess.run(["make", ".env"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    lines = (tmp_path / ".env").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["ML_SEED=8", "REDIS_PASSWORD=mine"]
    assert [line.partition("=")[0] for line in lines[2:]] == [
        name for name in PASSWORDS if name != "REDIS_PASSWORD"
    ]
    made = {line.partition("=")[2] for line in lines[2:]}
    assert len(made) == 3
    assert all(re.fullmatch(r"[0-9a-f]{40}", password) for password in made)


def test_what_is_mounted_is_there() -> None:
    for service in load(PROJECT / "compose.yaml")["services"].values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (PROJECT / volume.partition(":")[0]).exists(), volume
