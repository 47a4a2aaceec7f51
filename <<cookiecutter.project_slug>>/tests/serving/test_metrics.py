from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from <<cookiecutter.package_name>>.bundle import NumberProfile, Profile
from <<cookiecutter.package_name>>.prediction_log import LoggedRows
from <<cookiecutter.package_name>>.serving.metrics import ServerMetrics
from <<cookiecutter.package_name>>.serving.store import ModelStore
from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import CASES, Models, publish, rewritten_bundle, rows_of, server_settings

Labels = frozenset[tuple[str, str]]


def scrape(client: TestClient) -> dict[str, dict[Labels, float]]:
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            labels = frozenset(sample.labels.items())
            assert labels not in series, f"{sample.name} has {sample.labels} twice"
            series[labels] = sample.value
    return found


def value(metrics: dict[str, dict[Labels, float]], name: str, **labels: str) -> float:
    return metrics[name][frozenset(labels.items())]


@pytest.mark.parametrize("case", CASES)
def test_predictions_and_features_are_counted(
    case: str, models: Models, settings: Settings, start: Any
) -> None:
    model = models.get(case)
    publish(settings, "1", model)
    client = start(settings)
    rows = rows_of(model)
    answers = client.post("/predict", json={"instances": rows}).json()["predictions"]
    answers += [client.post("/predict", json={"features": row}).json() for row in rows[:20]]
    rows = rows + rows[:20]
    metrics = scrape(client)
    assert value(metrics, "model_prediction_latency_seconds_count") == 21
    predicted = [str(answer["prediction"]) for answer in answers]
    outcomes = {
        outcome: predicted.count(outcome) for outcome in map(str, model.bundle.signature.classes)
    } or {"value": len(rows)}
    for outcome, number in outcomes.items():
        found = value(metrics, "model_prediction_total", model_version="1", outcome=outcome)
        assert found == number
    assert len(metrics["model_prediction_total"]) == len(outcomes)
    for index, name in enumerate(model.bundle.signature.names):
        column = [row[index] for row in rows]
        if name in model.bundle.profile.numbers:
            assert_histogram(metrics, model.bundle.profile.numbers[name].edges, name, column)
        else:
            assert_categories(metrics, name, column)


def assert_histogram(metrics: Any, edges: Any, name: str, column: list[float]) -> None:
    labels = {"model_version": "1", "feature_name": name}
    for edge in edges:
        found = value(metrics, "model_feature_value_bucket", le=str(edge), **labels)
        assert found == sum(number <= edge for number in column)
    assert value(metrics, "model_feature_value_bucket", le="+Inf", **labels) == len(column)
    assert value(metrics, "model_feature_value_count", **labels) == len(column)
    assert value(metrics, "model_feature_value_sum", **labels) == pytest.approx(sum(column))


def assert_categories(metrics: Any, name: str, column: list[str]) -> None:
    labels = {"model_version": "1", "feature_name": name}
    for category in ("berlin", "køge", ""):
        found = value(metrics, "model_feature_category_total", category=category, **labels)
        assert found == column.count(category)
    assert value(metrics, "model_feature_category_total", category="other", **labels) == 0


def test_nothing_that_a_client_sends_becomes_a_label(mixed_client: TestClient) -> None:
    sent = "sent-by-a-client"
    for body in (
        {"features": [sent, 1.0, sent, 2], "user_id": sent},
        {"features": {"city": "", "amount": 1.0, "tier": "", "visits": 2, sent: 1}},
        {sent: 1},
    ):
        mixed_client.post("/predict", json=body, headers={"X-Request-ID": sent})
    mixed_client.request(sent.upper(), "/predict")
    mixed_client.get(f"/{sent}")
    assert sent not in mixed_client.get("/metrics").text.lower()
    labels = {"model_version": "1", "feature_name": "city", "category": "other"}
    assert value(scrape(mixed_client), "model_feature_category_total", **labels) == 1


@pytest.mark.parametrize("number", [0.1, 0.7, float(np.float32(0.1)), float(np.float32(0.7))])
def test_a_number_lies_in_the_bin_of_an_equal_edge(
    number: float, models: Models, settings: Settings, start: Any, tmp_path: Path
) -> None:
    model = models.get("one number")
    amount = NumberProfile(edges=(number,), counts=(1, 0))
    profile = Profile(rows=1, numbers={"amount": amount})
    publish(settings, "1", rewritten_bundle(tmp_path / "b", model, profile=profile))
    client = start(settings)
    client.post("/predict", json={"features": [number]})
    labels = {"model_version": "1", "feature_name": "amount", "le": str(number)}
    assert value(scrape(client), "model_feature_value_bucket", **labels) == 1


def test_negative_numbers_are_counted_without_a_sum(
    models: Models, settings: Settings, start: Any, tmp_path: Path
) -> None:
    model = models.get("one number")
    profile = Profile(
        rows=1, numbers={"amount": NumberProfile(edges=(-1.0, 1.0), counts=(1, 1, 0))}
    )
    publish(settings, "1", rewritten_bundle(tmp_path / "b", model, profile=profile))
    client = start(settings)
    client.post("/predict", json={"instances": [[-5.0], [0.0], [0.5], [7.0]]})
    metrics = scrape(client)
    labels = {"model_version": "1", "feature_name": "amount"}
    buckets = {"-1.0": 1, "1.0": 3, "+Inf": 4}
    for edge, rows in buckets.items():
        assert value(metrics, "model_feature_value_bucket", le=edge, **labels) == rows
    assert value(metrics, "model_feature_value_count", **labels) == 4
    assert "model_feature_value_sum" not in metrics


def test_refused_requests_are_counted_by_status_and_not_as_predictions(client: TestClient) -> None:
    for body in (b"{", b'{"features": [1]}', b'{"features": [1, 2.5]}'):
        client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    client.post("/predict", content=b"{}")
    client.get("/nope")
    metrics = scrape(client)
    assert metrics["model_prediction_errors_total"] == {
        frozenset({("status", "400")}): 1,
        frozenset({("status", "422")}): 2,
        frozenset({("status", "415")}): 1,
    }
    assert value(metrics, "model_prediction_latency_seconds_count") == 0
    assert sum(metrics["model_prediction_total"].values()) == 0
    assert sum(metrics["model_feature_value_count"].values()) == 0


def test_metrics_follow_the_model(
    settings: Settings, models: Models, start: Any, eventually: Any
) -> None:
    client = start(settings)
    assert "model_info" not in scrape(client)
    for version, case in (("1", "binary"), ("2", "one text"), ("3", "one number")):
        publish(settings, version, models.get(case))
        eventually(lambda version=version: client.get("/health").json()["model_version"] == version)
        example = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]
        body = example["content"]["application/json"]["examples"]["named"]["value"]
        assert client.post("/predict", json=body).status_code == 200
    metrics = scrape(client)
    (info,) = metrics["model_info"]
    assert ("model_version", "3") in info
    assert value(metrics, "model_reloads_total", result="loaded") == 3
    assert value(metrics, "model_reloads_total", result="refused") == 0
    versions = {dict(labels)["model_version"] for labels in metrics["model_prediction_total"]}
    assert versions == {"1", "2", "3"}
    kept = {dict(labels)["model_version"] for labels in metrics["model_feature_value_count"]}
    assert kept == {"3"}
    assert {
        dict(labels)["model_version"] for labels in metrics["model_feature_category_total"]
    } == {"2"}


def test_rows_of_many_requests_at_once_are_all_counted(client: TestClient) -> None:
    def send(_: int) -> int:
        scrape(client)
        return client.post("/predict", json={"instances": [[1.0, 2]] * 100}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(send, range(40))) == {200}
    labels = {"model_version": "1", "feature_name": "visits"}
    assert value(scrape(client), "model_feature_value_count", **labels) == 4_000


@pytest.mark.parametrize("successor", ["binary", "one number", "one text"])
def test_rows_of_a_replaced_model_are_not_counted_as_its_successors(
    successor: str, models: Models, settings: Settings
) -> None:
    metrics = ServerMetrics()
    store = ModelStore(settings.served_dir, settings.experiment_path, metrics)
    publish(settings, "1", models.get("binary"))
    store.refresh()
    assert store.current
    replaced = store.current.control
    blocks, scores = replaced.score([("#", replaced.example)])
    publish(settings, "1", models.get(successor, seed=1))
    store.refresh()
    assert store.current.control is not replaced
    rows = LoggedRows(
        model_version="1",
        variant="",
        experiment="",
        shadow=False,
        request_ids=["a"],
        user_ids=[None],
        at=np.zeros(1),
        latency_seconds=np.zeros(1, np.float32),
        blocks=blocks,
        scores=scores,
    )
    metrics.count(rows, replaced.profile, requests=1)
    counted = [
        sample.value
        for family in metrics.registry.collect()
        if family.name in ("model_prediction", "model_feature_value", "model_feature_category")
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
    assert len(counted) > 2
    assert not any(counted)


def test_two_applications_share_nothing(
    client: TestClient, models: Models, start: Any, tmp_path: Any
) -> None:
    other_settings = server_settings(tmp_path / "other")
    publish(other_settings, "1", models.get("binary"))
    other = start(other_settings)
    client.post("/predict", json={"features": [1.0, 2]})
    assert value(scrape(client), "model_prediction_latency_seconds_count") == 1
    assert value(scrape(other), "model_prediction_latency_seconds_count") == 0


def test_a_scraper_may_ask_for_openmetrics(client: TestClient) -> None:
    plain = client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
