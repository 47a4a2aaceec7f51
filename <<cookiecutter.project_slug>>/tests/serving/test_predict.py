from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from <<cookiecutter.package_name>>.bundle import Scorer
from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import (
    CASES,
    Models,
    estimator_answers,
    overflowing_model,
    publish,
    rewritten_bundle,
    rows_of,
    server_settings,
)


@pytest.mark.parametrize("case", CASES)
def test_answers_are_the_estimators(
    case: str, models: Models, settings: Settings, start: Any
) -> None:
    model = models.get(case)
    publish(settings, "7", model)
    client = start(settings)
    rows, expected = rows_of(model), estimator_answers(model)
    names = model.bundle.signature.names
    for row, answer in list(zip(rows, expected, strict=True))[:10]:
        listed = client.post("/predict", json={"features": row})
        named = client.post("/predict", json={"features": dict(zip(names, row, strict=True))})
        assert listed.status_code == named.status_code == 200
        assert listed.json().keys() == {
            "prediction",
            "confidence",
            "model_version",
            "variant",
            "request_id",
        }
        assert_same([listed.json(), named.json()], [answer, answer])
        assert listed.json()["model_version"] == "7"
        assert listed.json()["variant"] == "control"
    batch = client.post("/predict", json={"instances": rows}).json()
    assert batch.keys() == {"predictions", "model_version", "variant", "request_id"}
    assert batch["predictions"][0].keys() == {"prediction", "confidence"}
    assert_same(batch["predictions"], expected)


def assert_same(found: list[dict[str, Any]], expected: list[tuple[Any, float | None]]) -> None:
    assert len(found) == len(expected)
    for answer, (prediction, confidence) in zip(found, expected, strict=True):
        assert type(answer["prediction"]) is type(prediction)
        if confidence is None:
            assert answer["prediction"] == pytest.approx(prediction, abs=1e-4)
            assert answer["confidence"] is None
        else:
            assert answer["prediction"] == prediction
            assert answer["confidence"] == pytest.approx(confidence, abs=1e-5)


def test_names_may_come_in_any_order_and_forms_may_be_mixed(mixed_client: TestClient) -> None:
    row = ["berlin", 40.5, "", 7]
    named = {"visits": 7, "tier": "", "amount": 40.5, "city": "berlin"}
    body = {"instances": [row, named, ["berlin", 40.5, "", 7.0]]}
    first, second, third = mixed_client.post("/predict", json=body).json()["predictions"]
    assert first == second == third


def test_a_user_may_stand_beside_the_features(client: TestClient) -> None:
    answer = client.post("/predict", json={"features": [1.0, 2], "user_id": "u-1"})
    assert answer.status_code == 200


MANY_FIELDS = ", ".join(f'"f{number}": 1' for number in range(1_000))
INVALID: list[tuple[str, str, str]] = [
    ("[1.0]", "#/features", "must hold 2 values (amount, visits), got 1"),
    ("[1.0, 2, 3]", "#/features", "must hold 2 values (amount, visits), got 3"),
    ("[]", "#/features", "must hold 2 values"),
    ("5", "#/features", "must be a list of values or an object of named values, got 5"),
    ("null", "#/features", "must be a list of values or an object"),
    ('{"amount": 1.0}', "#/features/visits", "visits is missing"),
    ('{"amount": 1.0, "visits": 1, "vists": 2}', "#/features/vists", '"vists" is no feature'),
    ('{"amount": 1.0, "visits": 1, "a/~é": 2}', "#/features/a~1~0%C3%A9", "is no feature"),
    ('{"amount": 1.0, "visits": 1, "\\ud800": 2}', "#/features", "must be valid Unicode"),
    ("[NaN, 2]", "#/features/0", "amount must be finite, got NaN"),
    ("[Infinity, 2]", "#/features/0", "amount must be finite, got Infinity"),
    ("[1.0, -Infinity]", "#/features/1", "visits must be finite, got -Infinity"),
    ("[1e999, 2]", "#/features/0", "amount must be finite"),
    ("[1e39, 2]", "#/features/0", "amount does not fit into 32 bits, got 1e+39"),
    ("[-3.5e38, 2]", "#/features/0", "amount does not fit into 32 bits"),
    (f"[1{'0' * 400}, 2]", "#/features/0", "amount must be a number, got 1000000"),
    ("[true, 2]", "#/features/0", "amount must be a number, got true"),
    ('["1.0", 2]', "#/features/0", 'amount must be a number, got "1.0"'),
    ("[null, 2]", "#/features/0", "amount must be a number, got null"),
    ("[[1.0], 2]", "#/features/0", "amount must be a number, got a list"),
    ('{"amount": {"a": 1}, "visits": 2}', "#/features/amount", "must be a number, got an object"),
    ("[1.0, 2.5]", "#/features/1", "visits must be a whole number, got 2.5"),
    ("[1.0, false]", "#/features/1", "visits must be a number, got false"),
]


@pytest.mark.parametrize(("features", "pointer", "words"), INVALID)
def test_a_value_that_is_not_valid_is_named(
    client: TestClient, features: str, pointer: str, words: str
) -> None:
    single = post_text(client, f'{{"features": {features}}}')
    assert_unprocessable(single, pointer, words)
    batch = post_text(client, f'{{"instances": [[1.0, 2], {features}]}}')
    assert_unprocessable(batch, pointer.replace("#/features", "#/instances/1"), words)


@pytest.mark.parametrize(
    ("features", "pointer", "words"),
    [
        ('[3, 1.0, "", 2]', "#/features/0", "city must be a string, got 3"),
        ('["a", 1.0, null, 2]', "#/features/2", "tier must be a string, got null"),
        ('["\\ud800", 1.0, "", 2]', "#/features/0", "city must be valid Unicode"),
    ],
)
def test_a_text_that_is_not_valid_is_named(
    mixed_client: TestClient, features: str, pointer: str, words: str
) -> None:
    assert_unprocessable(post_text(mixed_client, f'{{"features": {features}}}'), pointer, words)


def test_unknown_and_odd_texts_are_scored(mixed_client: TestClient) -> None:
    for text in ("never seen", "\x00", "\U0001f600" * 100, ""):
        answer = mixed_client.post("/predict", json={"features": [text, 1.0, text, 2]})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ("[]", "#", 'the body must be an object that has "features", "instances" or "user_id"'),
        ('"text"', "#", "the body must be an object"),
        ("NaN", "#", "the body must be an object"),
        ("{}", "#", "the body must be an object that has"),
        ("", "#", "the body is missing"),
        ('{"features": [1.0, 2], "extra": 1}', "#/extra", "is no field of this request"),
        (f'{{"features": [1.0, 2], {MANY_FIELDS}}}', "#", "the body must be an object that has"),
        ('{"features": [1.0, 2], "instances": [[1.0, 2]]}', "#/features", "is no field"),
        ('{"features": [1.0, 2], "user_id": 5}', "#/user_id", "must be a string, got 5"),
        ('{"features": [1.0, 2], "user_id": ""}', "#/user_id", "must not be empty"),
        ('{"features": [1.0, 2], "user_id": "\\ud800"}', "#/user_id", "valid Unicode"),
        ('{"instances": []}', "#/instances", "must not be empty"),
        ('{"instances": 5}', "#/instances", "list"),
        ('{"instances": [[1.0, 2], 5]}', "#/instances/1", "must be a list of values"),
        ('{"user_id": "u-1"}', "#/user_id", "this server holds no feature store"),
    ],
)
def test_a_request_of_another_form_is_named(
    client: TestClient, body: str, pointer: str, words: str
) -> None:
    assert_unprocessable(post_text(client, body), pointer, words)


def test_several_errors_are_named_up_to_a_limit(client: TestClient) -> None:
    problem = client.post("/predict", json={"features": {"visits": "x", "amont": 1}}).json()
    assert [error["pointer"] for error in problem["errors"]] == [
        "#/features/amount",
        "#/features/visits",
        "#/features/amont",
    ]
    assert problem["detail"] == "amount is missing (and 2 more)"
    forms = client.post("/predict", json={"instances": [1, 2, 3]}).json()
    assert [error["pointer"] for error in forms["errors"]] == ["#/instances/0"]
    many = client.post("/predict", json={"instances": [["x", "y"]] * 500}).json()
    assert len(many["errors"]) == 20
    names = client.post("/predict", json={"features": {f"n{i}": i for i in range(10_000)}}).json()
    assert [error["pointer"] for error in names["errors"]] == ["#/features"]


def test_too_many_instances_are_refused(models: Models, settings: Settings, start: Any) -> None:
    limited = settings.model_copy(update={"max_batch_rows": 3})
    publish(limited, "1", models.get("binary"))
    client = start(limited)
    assert client.post("/predict", json={"instances": [[1.0, 2]] * 3}).status_code == 200
    answer = client.post("/predict", json={"instances": [[1.0, 2]] * 4})
    assert_unprocessable(answer, "#/instances", "4 instances are too many: send 3 at most")


def test_an_answer_that_is_not_finite_is_the_requests_fault(
    models: Models, settings: Settings, start: Any, tmp_path: Any
) -> None:
    model = models.get("one number")
    publish(settings, "1", rewritten_bundle(tmp_path / "b", model, model=overflowing_model()))
    client = start(settings)
    assert client.post("/predict", json={"features": [2.0]}).json()["prediction"] == 2e6
    answer = client.post("/predict", json={"instances": [[2.0], [3e38]]})
    assert_unprocessable(answer, "#/instances/1", "the model has no finite answer")


def test_a_large_batch_does_not_hold_other_requests(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring, released = threading.Event(), threading.Event()
    scores = Scorer.scores

    def slow(self: Scorer, blocks: Any) -> Any:
        scoring.set()
        assert released.wait(10)
        return scores(self, blocks)

    monkeypatch.setattr(Scorer, "scores", slow)
    answers: list[int] = []
    batch = {"instances": [[1.0, 2]] * 500}
    thread = threading.Thread(
        target=lambda: answers.append(client.post("/predict", json=batch).status_code)
    )
    thread.start()
    assert scoring.wait(10)
    assert client.get("/live").status_code == 200
    assert not answers
    released.set()
    thread.join()
    assert answers == [200]


def test_hostile_bodies_never_fail_the_server(mixed_client: TestClient) -> None:
    random = np.random.default_rng(7)
    pieces = ["NaN", "-Infinity", "1e400", "-0.0", "1", "2.5", "true", "null", '""', '"\\ud800"']
    pieces += ["[]", "{}", '{"city": 1}', '"city"', "9" * 400, '"\\u0000"', '["a", 1.0, "b", 2]']
    templates = ['{"features": [%s, %s, %s, %s]}', '{"instances": [%s, %s, [%s, %s, 1, 1]]}']
    templates += ['{"features": {"city": %s, "amount": %s, "tier": %s, "visits": %s}}']
    templates += ['{"features": %s, "user_id": %s, %s: %s}', "[%s, %s, %s, %s]", "%s%s%s%s"]
    seen = set()
    for _ in range(600):
        odd = random.choice(pieces, 4)
        filled = np.where(random.random(4) < 0.6, ('"a"', "1.5", '"b"', "2"), odd)
        body = str(random.choice(templates)) % tuple(filled)
        if random.random() < 0.2:
            body = body[: random.integers(len(body))]
        answer = post_text(mixed_client, body)
        seen.add(answer.status_code)
        assert answer.status_code in {200, 400, 422}, (body, answer.text)
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert seen == {200, 400, 422}


def test_without_a_model_predict_says_so(tmp_path: Any, start: Any) -> None:
    client = start(server_settings(tmp_path, model_poll_seconds=2.5))
    answer = client.post("/predict", json={"features": [1.0, 2]})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "no model is loaded" in answer.json()["detail"]


def post_text(client: TestClient, body: str) -> Any:
    return client.post("/predict", content=body, headers={"Content-Type": "application/json"})


def assert_unprocessable(answer: Any, pointer: str, words: str) -> None:
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 422
    assert problem["type"] == "about:blank"
    assert problem["instance"] == "/predict"
    assert problem["request_id"] == answer.headers["x-request-id"]
    details = {error["pointer"]: error["detail"] for error in problem["errors"]}
    assert words in details[pointer]
