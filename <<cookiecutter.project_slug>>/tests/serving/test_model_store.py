from __future__ import annotations

import json
import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from <<cookiecutter.package_name>>.bundle import Scorer
from <<cookiecutter.package_name>>.served_models import PRODUCTION, version_folder, write_aliases
from <<cookiecutter.package_name>>.serving import store as store_module
from <<cookiecutter.package_name>>.serving.metrics import ServerMetrics
from <<cookiecutter.package_name>>.serving.store import ModelStore
from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import Models, publish, rewritten_bundle


@pytest.fixture
def store(settings: Settings) -> ModelStore:
    return ModelStore(settings.served_dir, settings.experiment_path, ServerMetrics())


def reloads(store: ModelStore) -> tuple[float, float]:
    """How often a model was loaded and refused."""
    value = store._metrics.registry.get_sample_value
    loaded = value("model_reloads_total", {"result": "loaded"})
    refused = value("model_reloads_total", {"result": "refused"})
    assert loaded is not None
    assert refused is not None
    return loaded, refused


def test_an_empty_folder_is_no_error(
    store: ModelStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    store.refresh()
    settings.served_dir.mkdir(parents=True)
    store.refresh()
    write_aliases(settings.served_dir, {"staging": "1"})
    store.refresh()
    assert store.current is None
    assert reloads(store) == (0, 0)
    assert not caplog.records


def test_a_model_is_loaded_once_and_replaced(
    store: ModelStore, settings: Settings, models: Models
) -> None:
    publish(settings, "1", models.get("binary"))
    store.refresh()
    first = store.current
    assert first is not None
    assert first.control.version == "1"
    for _ in range(3):
        store.refresh()
    assert store.current is first
    publish(settings, "2", models.get("binary", seed=1))
    store.refresh()
    assert store.current is not None
    assert store.current.control.version == "2"
    publish(settings, "1", models.get("binary"))
    store.refresh()
    assert store.current.control.version == "1"
    assert reloads(store) == (3, 0)


def break_file(name: str, content: bytes) -> Any:
    def broken(settings: Settings, *_: Any) -> None:
        (version_folder(settings.served_dir, "2") / name).write_bytes(content)

    return broken


def remove_version(settings: Settings, *_: Any) -> None:
    shutil.rmtree(version_folder(settings.served_dir, "2"))


def write_text_aliases(text: str) -> Any:
    def broken(settings: Settings, *_: Any) -> None:
        (settings.served_dir / "aliases.json").write_text(text)

    return broken


def make_aliases_a_folder(settings: Settings, *_: Any) -> None:
    (settings.served_dir / "aliases.json").unlink()
    (settings.served_dir / "aliases.json").mkdir()


def rewrite(**changes: Any) -> Any:
    def broken(settings: Settings, models: Models, tmp_path: Path) -> None:
        remove_version(settings)
        model = models.get("binary")
        values = {name: make(model) for name, make in changes.items()}
        publish(settings, "2", rewritten_bundle(tmp_path / "rewritten", model, **values))

    return broken


def of_three_classes(model: Any) -> Any:
    signature = model.bundle.signature.model_copy(
        update={"task": "multiclass", "classes": (0, 1, 2)}
    )
    return model.bundle.metadata.model_copy(update={"signature": signature})


def of_one_feature(model: Any) -> Any:
    features = model.bundle.signature.features[:1]
    signature = model.bundle.signature.model_copy(update={"features": features})
    return model.bundle.metadata.model_copy(update={"signature": signature})


BROKEN = {
    "altered model": (break_file("model.onnx", b"altered"), "model.onnx was altered"),
    "altered metadata": (break_file("metadata.json", b"{}"), "metadata.json was altered"),
    "checksums are no text": (break_file("SHA256SUMS", b"\xff\xfe"), "does not match"),
    "missing version": (remove_version, "is no complete bundle"),
    "aliases are no JSON": (write_text_aliases("{"), "is not JSON"),
    "aliases are no object": (write_text_aliases('["2"]'), "must look like"),
    "aliases are a folder": (make_aliases_a_folder, "cannot be read"),
    "alias leads out": (write_text_aliases('{"production": "../../etc"}'), "is no version"),
    "no production": (write_text_aliases('{"staging": "2"}'), "names no production version"),
    "not ONNX": (rewrite(model=lambda _: b"not onnx"), "refused"),
    "other classes": (rewrite(metadata=of_three_classes), "answers with the shape (1, 2)"),
    "other features": (rewrite(metadata=of_one_feature), "refused"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_refused_once_and_the_old_model_keeps_serving(
    case: str,
    store: ModelStore,
    settings: Settings,
    models: Models,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(settings, "1", models.get("binary"))
    store.refresh()
    old = store.current
    publish(settings, "2", models.get("binary", seed=1))
    break_it, words = BROKEN[case]
    break_it(settings, models, tmp_path)
    for _ in range(3):
        store.refresh()
    assert store.current is old
    assert reloads(store) == (1, 1)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.ERROR
    assert "version 1 keeps serving" in caplog.text
    assert words in caplog.text

    shutil.rmtree(settings.served_dir)
    publish(settings, "2", models.get("binary", seed=1))
    store.refresh()
    assert store.current is not None
    assert store.current.control.version == "2"


def test_a_broken_bundle_at_the_start_leaves_no_model(
    store: ModelStore, settings: Settings, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    publish(settings, "2", models.get("binary"))
    break_file("model.onnx", b"altered")(settings)
    store.refresh()
    assert store.current is None
    assert "refused (no model)" in caplog.text


def test_the_running_model_outlives_damage_to_its_files(
    store: ModelStore, settings: Settings, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    publish(settings, "2", models.get("binary"))
    store.refresh()
    break_file("model.onnx", b"altered")(settings)
    store.refresh()
    assert store.current is not None
    assert len(caplog.records) == 1
    publish(settings, "2", models.get("binary"))
    store.refresh()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    break_file("model.onnx", b"altered")(settings)
    store.refresh()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]
    assert store.current.control.version == "2"


def test_a_refused_state_is_tried_again_later(
    store: ModelStore,
    settings: Settings,
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(settings, "1", models.get("binary"))
    load_model, attempts = store_module.load_model, []

    def failing(served: Path, version: str) -> Any:
        attempts.append(version)
        if len(attempts) < 3:
            raise OSError("no file handle is free")
        return load_model(served, version)

    monkeypatch.setattr(store_module, "load_model", failing)
    store.refresh()
    store.refresh()
    assert attempts == ["1"]
    monkeypatch.setattr(store_module, "RETRY_SECONDS", 0.0)
    store._retry_at = 0.0
    store.refresh()
    assert len(attempts) == 2
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None
    store.refresh()
    assert store.current is not None
    assert reloads(store) == (1, 1)


def test_a_request_under_way_ends_on_the_model_that_it_began_with(
    settings: Settings,
    models: Models,
    start: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(settings, "1", models.get("binary"))
    client: TestClient = start(settings)
    scoring, released = threading.Event(), threading.Event()
    scores = Scorer.scores

    def slow(self: Scorer, blocks: Any) -> Any:
        if len(blocks["numbers"]) > 100:
            scoring.set()
            assert released.wait(10)
        return scores(self, blocks)

    monkeypatch.setattr(Scorer, "scores", slow)
    answers: list[dict[str, Any]] = []
    batch = {"instances": [[1.0, 2]] * 200}
    thread = threading.Thread(
        target=lambda: answers.append(client.post("/predict", json=batch).json())
    )
    thread.start()
    assert scoring.wait(10)
    publish(settings, "2", models.get("binary", seed=1))
    eventually(lambda: client.get("/health").json()["model_version"] == "2")
    released.set()
    thread.join()
    assert answers[0]["model_version"] == "1"
    assert client.post("/predict", json={"features": [1.0, 2]}).json()["model_version"] == "2"


def test_the_aliases_file_is_what_is_watched(settings: Settings, models: Models) -> None:
    publish(settings, "1", models.get("binary"))
    content = json.loads((settings.served_dir / "aliases.json").read_text())
    assert content == {PRODUCTION: "1"}
