from __future__ import annotations

import json
import os
import shlex
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wandb
from pydantic import ValidationError
from typer.testing import CliRunner
from wandb.proto.wandb_internal_pb2 import Record

from <<cookiecutter.package_name>> import cli
from <<cookiecutter.package_name>>.bundle import RunReference, read_bundle
from <<cookiecutter.package_name>>.errors import ProjectError
from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.settings import Settings
from <<cookiecutter.package_name>>.tracking import start_run, where_to_look
from <<cookiecutter.package_name>>.tracking import wandb as tracker

from ..trained import Trained
from .recorded_run import (
    DATA,
    FOLDS,
    METRICS,
    MORE_TAGS,
    PARAMETERS,
    RUN_NAME,
    TAGS,
    break_off,
    only_loopback,
    record,
)

MODEL = "sample-model"
BLOCK = 32_768
LAST_CHUNKS = (1, 4)


@dataclass(frozen=True)
class Recorded:
    """A tracked run, what its offline file says, and where it was run."""

    settings: Settings
    reference: RunReference
    trained: Trained
    uri: str | None
    records: list[Any]
    outside: Path
    connections: list[Any]

    def of_kind(self, kind: str) -> list[Any]:
        return _of_kind(self.records, kind)

    @property
    def config(self) -> dict[str, Any]:
        updates = [update for config in self.of_kind("config") for update in config.update]
        return {update.key: json.loads(update.value_json) for update in updates}

    @property
    def history(self) -> list[dict[str, Any]]:
        return _history(self.of_kind("history"))

    def artifact(self, kind: str) -> Any:
        (artifact,) = [a for a in self.of_kind("artifact") if a.type == kind]
        return artifact

    def artifact_files(self, kind: str) -> dict[str, Path]:
        contents = self.artifact(kind).manifest.contents
        return {entry.path: Path(entry.local_path) for entry in contents}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    home, outside = tmp_path_factory.mktemp("a home"), tmp_path_factory.mktemp("outside")
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as proxy:
        patch.chdir(outside)
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            patch.setenv(name, str(outside))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
            patch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        wandb.teardown()  # first: the patch would put back the address of a service that is gone
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        settings = Settings(home=home, model_name=MODEL)
        with only_loopback():
            reference, trained, uri = record(settings, settings.models_dir / "trained")
        wandb.teardown()
        records = _read(home, reference)
        yield Recorded(settings, reference, trained, uri, records, outside, _accepted(proxy))


def _accepted(server: socket.socket) -> list[Any]:
    server.setblocking(False)
    accepted = []
    while True:
        try:
            accepted.append(server.accept())
        except BlockingIOError:
            return accepted


def _read(home: Path, reference: RunReference) -> list[Any]:
    (path,) = (home / "wandb").glob(f"offline-run-*-{reference.id}/run-{reference.id}.wandb")
    return [Record.FromString(content) for content in _leveldb_records(path.read_bytes())]


def _of_kind(records: list[Any], kind: str) -> list[Any]:
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def _history(records: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for history in records:
        row: dict[str, Any] = {}
        for item in history.item:
            *above, last = item.nested_key
            place = row.setdefault(above[0], {}) if above else row
            place[last] = json.loads(item.value_json)
        rows.append(row)
    return rows


def _leveldb_records(log: bytes) -> Iterator[bytes]:
    """Chunks of (checksum, length, kind, content) in blocks, after a header of seven bytes."""
    assert log.startswith(b":W&B")
    position, content = 7, b""
    while position + 7 <= len(log):
        left = BLOCK - position % BLOCK
        _, length, kind = struct.unpack_from("<IHB", log, position)
        if left < 7 or kind == 0:
            position += left
            continue
        content += log[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in LAST_CHUNKS:
            yield content
            content = b""


def test_the_run_is_finished_and_named(recorded: Recorded) -> None:
    (run,), (end,) = recorded.of_kind("run"), recorded.of_kind("exit")
    assert (run.project, run.display_name, run.run_id) == (MODEL, RUN_NAME, recorded.reference.id)
    assert end.exit_code == 0
    assert recorded.reference.tracker == "wandb"


def test_the_address_is_the_runs_folder(recorded: Recorded) -> None:
    (folder,) = (recorded.settings.home / "wandb").glob("offline-run-*")
    assert recorded.reference.url == folder.as_uri()


def test_where_to_look_shows_the_runs_without_an_account(recorded: Recorded) -> None:
    (_, program, verb, found) = shlex.split(where_to_look(recorded.settings))
    command = [str(Path(sys.executable).with_name(program)), verb, "inspect", "--summary", found]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert recorded.reference.id in shown.stdout


def test_every_parameter_is_there(recorded: Recorded) -> None:
    assert {name: recorded.config[name] for name in PARAMETERS} == PARAMETERS


def test_every_tag_is_there(recorded: Recorded) -> None:
    assert recorded.config["lineage"] == TAGS | MORE_TAGS


def test_every_metric_is_there_with_its_step(recorded: Recorded) -> None:
    steps = {row["step"]: row for row in recorded.history if "step" in row}
    assert steps.keys() == FOLDS.keys()
    for step, metrics in FOLDS.items():
        assert {name: steps[step][name] for name in metrics} == metrics
    (last,) = [row for row in recorded.history if "roc_auc" in row]
    assert {name: last[name] for name in METRICS} == METRICS
    assert "step" not in last
    axes = {metric.name: metric.step_metric for metric in recorded.of_kind("metric")}
    assert axes == dict.fromkeys(FOLDS[1], "step")


def test_the_data_set_is_there(recorded: Recorded) -> None:
    assert json.loads(recorded.artifact("dataset").metadata) == {
        "rows": DATA.rows,
        "label": DATA.label,
        "source": DATA.source,
        "fingerprint": DATA.fingerprint,
    }
    (path,) = recorded.artifact_files("dataset").values()
    table = json.loads(path.read_text())
    assert table["columns"] == list(DATA.sample)
    assert [row[1:] for row in table["data"]] == DATA.sample.iloc[:, 1:].to_numpy().tolist()


def test_every_report_is_there_to_look_at_and_as_a_file(recorded: Recorded) -> None:
    files = recorded.artifact_files("reports")
    reports = {path.name: path for path in (recorded.trained.folder / "reports").iterdir()}
    assert {path.suffix for path in reports.values()} == {".png", ".csv"}
    assert {name: path.read_bytes() for name, path in files.items()} == {
        name: path.read_bytes() for name, path in reports.items()
    }
    (row,) = [row for row in recorded.history if "reports/roc" in row]
    media = Path(recorded.reference.url.removeprefix("file://").replace("%20", " ")) / "files"
    picture, table = row["reports/roc"], row["reports/feature_importance"]
    assert (picture["_type"], table["_type"]) == ("image-file", "table-file")
    assert (media / picture["path"]).read_bytes() == reports["roc.png"].read_bytes()
    shown = json.loads((media / table["path"]).read_text())
    expected = pd.read_csv(reports["feature_importance.csv"])
    assert (shown["columns"], shown["data"]) == (list(expected), expected.to_numpy().tolist())


def test_the_model_with_bundle_signature_and_example_is_there(
    recorded: Recorded, tmp_path: Path
) -> None:
    bundle = recorded.trained.bundle
    assert recorded.uri is None
    assert recorded.artifact("model").name == MODEL
    metadata = json.loads(recorded.artifact("model").metadata)
    assert metadata["signature"] == bundle.signature.model_dump(mode="json")
    assert metadata["run"]["id"] == recorded.reference.id

    files = recorded.artifact_files("model")
    for name, stored in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(stored.read_bytes())
    assert read_bundle(tmp_path / "bundle") == bundle
    assert len(pd.read_parquet(tmp_path / "evaluation.parquet")) == len(recorded.trained.rows)
    example = pd.read_json(tmp_path / "input_example.json", orient="split")
    expected = recorded.trained.rows[list(bundle.signature.names)].head(5)
    pd.testing.assert_frame_equal(example, expected, check_dtype=False, rtol=1e-5)


def test_nothing_is_written_outside_the_home(recorded: Recorded) -> None:
    assert not list(recorded.outside.iterdir())
    assert {path.name for path in recorded.settings.home.iterdir()} == {"models", "wandb"}


def test_git_leaves_the_runs_alone(recorded: Recorded) -> None:
    assert (recorded.settings.home / "wandb" / ".gitignore").read_text(encoding="utf-8") == "*\n"


def test_no_connection_is_tried(recorded: Recorded) -> None:
    assert recorded.connections == []


def test_the_machine_is_not_described(recorded: Recorded) -> None:
    assert recorded.of_kind("environment") == []
    assert recorded.of_kind("stats") == []


def test_error_reports_are_off_where_nothing_else_switches_them_off() -> None:
    code = f"import {tracker.__name__}, wandb.env; print(wandb.env.error_reporting_enabled())"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_an_exception_marks_the_run_as_failed(recorded: Recorded) -> None:
    broken = break_off(recorded.settings, {"roc_auc": 0.5})
    wandb.teardown()
    records = _read(recorded.settings.home, broken)
    (end,) = _of_kind(records, "exit")
    assert end.exit_code == 1
    assert [row["roc_auc"] for row in _history(_of_kind(records, "history"))] == [0.5]


def test_steps_may_come_in_any_order_or_not_at_all(tmp_path: Path) -> None:
    with start_run(Settings(home=tmp_path, model_name=MODEL), "unordered") as run:
        run.log_metrics({"roc_auc": 0.5}, step=2)
        run.log_metrics({"roc_auc": 0.4}, step=1)
        run.log_metrics({"roc_auc": 0.6})
    wandb.teardown()
    history = _history(_of_kind(_read(tmp_path, run.reference), "history"))
    assert [(row.get("step"), row["roc_auc"]) for row in history] == [
        (2, 0.5),
        (1, 0.4),
        (None, 0.6),
    ]


def test_online_without_a_key_is_an_error_and_no_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    begun = time.monotonic()
    with (
        pytest.raises(ProjectError, match="WANDB_MODE=online needs WANDB_API_KEY"),
        start_run(Settings(home=tmp_path), "online"),
    ):
        pass
    assert time.monotonic() - begun < 5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["0123456789" * 4, "short"])
def test_a_service_that_is_away_or_refuses_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(tracker, "ANSWER_SECONDS", 1)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", key)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with (
            pytest.raises(ProjectError, match="W&B does not take the run"),
            start_run(Settings(home=tmp_path), "online"),
        ):
            pass


def test_an_unknown_mode_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with (
        pytest.raises(ValidationError, match="'offline' or 'online'"),
        start_run(Settings(home=tmp_path), "typo"),
    ):
        pass


def test_the_mode_may_stand_in_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("WANDB_MODE=online\n")
    with (
        pytest.raises(ProjectError, match="WANDB_API_KEY"),
        start_run(Settings(home=tmp_path), "online"),
    ):
        pass


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Online, with a key and a service that does not answer."""
    monkeypatch.setattr(tracker, "ANSWER_SECONDS", 1)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        yield


def waiting(registry: Registry) -> dict[str, list[str]]:
    paths = (registry._settings.home / "wandb" / "links").glob("*.json")
    return {path.stem: json.loads(path.read_text())["aliases"] for path in paths}


def test_offline_links_wait_and_are_shown(
    registry: Registry, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        registry.promote(registry.register(good).number, reason="a test", force=True)
    assert waiting(registry) == {"1": ["production", "staging"], "2": ["production", "staging"]}
    registry.rollback("slower")
    assert waiting(registry) == {"1": ["production"], "2": ["production", "staging"]}
    monkeypatch.setenv("ML_HOME", str(registry._settings.home))
    shown = CliRunner().invoke(cli.app, ["registry", "list"]).output
    assert "not in the registry of W&B yet: version 1, 2" in shown
    assert "registry link" in shown
    with pytest.raises(ProjectError, match="WANDB_MODE=online and WANDB_API_KEY"):
        tracker.link(registry._settings, registry.versions())
    assert "link" in CliRunner().invoke(cli.app, ["registry", "--help"]).output


@pytest.mark.usefixtures("closed_port")
def test_a_service_that_is_away_holds_no_promotion_up(
    registry: Registry, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.register(good)
    assert "W&B does not link version 1" in capsys.readouterr().err
    assert registry.promote(reason="a test", force=True).number == "1"
    assert waiting(registry) == {"1": ["production", "staging"]}
    with pytest.raises(ProjectError, match="`wandb sync`, then run `registry link`"):
        tracker.link(registry._settings, registry.versions())
    assert waiting(registry) == {"1": ["production", "staging"]}
