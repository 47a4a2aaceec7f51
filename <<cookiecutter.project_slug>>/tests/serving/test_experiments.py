from __future__ import annotations

import logging
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from <<cookiecutter.package_name>>.bundle import MODEL_FILE
from <<cookiecutter.package_name>>.experiment import validated, write_experiment
from <<cookiecutter.package_name>>.prediction_log import SEGMENTS_FOLDER, RowsRecord, read_segment
from <<cookiecutter.package_name>>.served_models import (
    PRODUCTION,
    add_version,
    version_folder,
    write_aliases,
)
from <<cookiecutter.package_name>>.serving.router import Router
from <<cookiecutter.package_name>>.settings import Settings
from <<cookiecutter.package_name>>.trained_model import BUNDLE_FOLDER

from ..bundles import Models, publish

KEY = "a-key-of-the-tests"
ARMS = [
    {"name": "control", "model": "production", "weight": "0.5"},
    {"name": "treatment", "model": "2", "weight": "0.5"},
]
EXPERIMENT = {"name": "x", "variants": ARMS, "shadow": {"name": "dark", "model": "3"}}


def serve_three(settings: Settings, models: Models) -> None:
    for version in ("2", "3"):
        folder = models.get("binary", seed=int(version)).folder / BUNDLE_FOLDER
        add_version(settings.served_dir, version, folder)
    publish(settings, "1", models.get("binary"))


def logged(settings: Settings) -> list[RowsRecord]:
    segments = (settings.prediction_log_dir / SEGMENTS_FOLDER).glob("*")
    records = [record for path in sorted(segments) for record in read_segment(path)]
    return [record for record in records if isinstance(record, RowsRecord)]


def test_users_keep_their_variant_and_everything_is_logged(
    settings: Settings, models: Models, start: Any
) -> None:
    serve_three(settings, models)
    experiment = validated(EXPERIMENT)
    write_experiment(settings.experiment_path, experiment)
    router = Router(experiment)
    versions = {"control": "1", "treatment": "2"}
    sent = {f"r-{number}": f"u-{number % 20}" for number in range(60)}
    with start(settings) as client:
        for request_id, user in sent.items():
            body = {"features": [1.5, 2], "user_id": user}
            headers = {"X-Request-ID": request_id}
            answer = client.post("/predict", json=body, headers=headers).json()
            assert answer["variant"] == router.route(user).variant
            assert answer["model_version"] == versions[answer["variant"]]
        alone = client.post("/predict", json={"features": [1.5, 2]}).json()
        assert (alone["variant"], alone["model_version"]) == ("control", "1")
        metrics = client.get("/metrics").text
    for variant, version in (*versions.items(), ("dark", "3")):
        labels = f'experiment="x",model_version="{version}",variant="{variant}"'
        assert f"model_variant_info{{{labels}}} 1.0" in metrics
    records = logged(settings)
    rows = {
        (request_id, record.variant): (record, user)
        for record in records
        for request_id, user in zip(record.request_ids, record.user_ids, strict=True)
    }
    for request_id, user in sent.items():
        record, found = rows[request_id, router.route(user).variant]
        assert (found, record.experiment, record.shadow) == (user, "x", False)
        record, found = rows[request_id, "dark"]
        assert (found, record.model_version, record.shadow) == (user, "3", True)
    outside = [record for record in records if not record.experiment]
    assert [record.user_ids for record in outside] == [[None]]
    assert sum(len(record.request_ids) for record in records) == 2 * 61


def test_a_variant_is_forced_with_a_key_only(
    settings: Settings, models: Models, start: Any
) -> None:
    serve_three(settings, models)
    write_experiment(settings.experiment_path, validated(EXPERIMENT))
    body = {"features": [1.5, 2], "user_id": "u-1"}
    open_server: TestClient = start(settings)
    assert open_server.post("/predict", json=body, headers={"X-Variant": "x"}).status_code == 403
    keyed: TestClient = start(settings.model_copy(update={"api_keys": SecretStr(KEY)}))
    for variant in ("control", "treatment"):
        headers = {"X-Variant": variant, "X-API-Key": KEY}
        answer = keyed.post("/predict", json=body, headers=headers)
        assert answer.json()["variant"] == variant
    headers["X-Variant"] = "nobody"
    answer = keyed.post("/predict", json=body, headers=headers)
    assert answer.status_code == 422
    assert "there are control, treatment" in answer.json()["detail"]


def test_the_experiment_is_followed_and_a_broken_one_refused(
    settings: Settings, models: Models, start: Any, eventually: Any, caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    serve_three(settings, models)
    settings.experiment_path.write_text("{")
    client: TestClient = start(settings)
    user = next(f"u-{n}" for n in range(99) if Router(validated(EXPERIMENT)).route(f"u-{n}").index)
    body = {"features": [1.5, 2], "user_id": user}

    def variant() -> Any:
        return client.post("/predict", json=body).json()["variant"]

    assert variant() == "control"  # production answers while the file is wrong
    assert "is not valid" in caplog.text
    write_experiment(settings.experiment_path, validated(EXPERIMENT))
    eventually(lambda: variant() == "treatment")
    unknown = [ARMS[0], {**ARMS[1], "model": "77"}]
    write_experiment(settings.experiment_path, validated({**EXPERIMENT, "variants": unknown}))
    eventually(lambda: "names the model '77'" in caplog.text)
    assert variant() == "treatment"
    write_aliases(settings.served_dir, {PRODUCTION: "1"})
    settings.experiment_path.unlink()
    eventually(lambda: variant() == "control")


def test_a_damaged_treatment_does_not_hold_production_up(
    settings: Settings, models: Models, start: Any, eventually: Any
) -> None:
    serve_three(settings, models)
    write_experiment(settings.experiment_path, validated(EXPERIMENT))
    damaged = version_folder(settings.served_dir, "2") / MODEL_FILE
    damaged.write_bytes(b"altered")
    client: TestClient = start(settings)

    def version() -> Any:
        return client.get("/health").json()["model_version"]

    assert version() == "1"
    write_aliases(settings.served_dir, {PRODUCTION: "3"})
    eventually(lambda: version() == "3")


def test_a_broken_experiment_does_not_hold_a_rollback_up(
    settings: Settings, models: Models, start: Any, eventually: Any
) -> None:
    serve_three(settings, models)
    write_experiment(settings.experiment_path, validated(EXPERIMENT))
    client: TestClient = start(settings)
    settings.experiment_path.write_text("{")
    write_aliases(settings.served_dir, {PRODUCTION: "3"})
    eventually(lambda: client.get("/health").json()["model_version"] == "3")


def test_a_batch_of_one_row_is_logged_as_a_batch(
    settings: Settings, models: Models, start: Any
) -> None:
    serve_three(settings, models)
    rows = {"batch": {"instances": [[1.5, 2]]}, "single": {"features": [1.5, 2]}}
    with start(settings) as client:
        for name, body in rows.items():
            for path in ("fast", "plain"):
                # An odd content type takes the plain way.
                kind = "application/json" if path == "fast" else "application/json; charset=UTF-8"
                headers = {"X-Request-ID": f"{name}-{path}", "Content-Type": kind}
                assert client.post("/predict", json=body, headers=headers).status_code == 200
    found = {request_id for record in logged(settings) for request_id in record.request_ids}
    assert found == {"batch-fast/0", "batch-plain/0", "single-fast", "single-plain"}


def test_variants_may_read_other_features(
    settings: Settings, models: Models, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    publish(settings, "1", models.get("binary"))
    add_version(settings.served_dir, "2", models.get("one number").folder / BUNDLE_FOLDER)
    arms = {"name": "x", "variants": ARMS}
    write_experiment(settings.experiment_path, validated(arms))
    client: TestClient = start(settings)
    router = Router(validated(arms))
    for user in (f"u-{number}" for number in range(10)):
        route = router.route(user)
        features = [1.5, 2] if route.index == 0 else [1.5]
        answer = client.post("/predict", json={"features": features, "user_id": user})
        assert answer.json()["variant"] == route.variant
    shadowed = {**EXPERIMENT, "shadow": {"model": "2"}, "variants": [{**ARMS[0], "weight": "1"}]}
    write_experiment(settings.experiment_path, validated(shadowed))
    client.app.state.store.refresh()  # type: ignore[attr-defined]
    assert "the shadow reads other features" in caplog.text
