from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from <<cookiecutter.package_name>>.prediction_log import FeedbackRecord
from <<cookiecutter.package_name>>.settings import Settings

from ..bundles import Models, publish, server_settings
from ..logs import records
from .conftest import Start


def outcomes(settings: Settings) -> list[tuple[str, Any]]:
    return [
        pair
        for record in records(settings.prediction_log_dir)
        if isinstance(record, FeedbackRecord)
        for pair in zip(record.request_ids, record.outcomes, strict=True)
    ]


def send(client: TestClient, outcome: Any, request_id: str = "abc") -> int:
    answer = client.post("/feedback", json={"request_id": request_id, "outcome": outcome})
    if answer.status_code == 422:
        assert answer.json()["errors"][0]["pointer"].startswith("#/outcome")
    return answer.status_code


@pytest.mark.parametrize(
    ("case", "good", "bad"),
    [
        ("binary", [1, 0], [2, 0.5, "1", True, None]),
        ("multiclass", ["high", "low"], ["higher", 1]),
        ("regression", [2.5, 3, -1e9], ["3", 1e39, 10**400, False]),
    ],
)
def test_outcomes_that_the_model_could_predict_are_kept(
    settings: Settings, models: Models, start: Start, case: str, good: list[Any], bad: list[Any]
) -> None:
    publish(settings, "1", models.get(case))
    client = start(settings)
    assert [send(client, outcome) for outcome in good] == [202] * len(good)
    assert [send(client, outcome) for outcome in bad] == [422] * len(bad)
    assert send(client, good[0], "batch/3") == 202
    client.__exit__(None, None, None)
    assert outcomes(settings) == [*(("abc", one) for one in good), ("batch/3", good[0])]


def test_a_request_id_that_no_answer_has_is_refused(client: TestClient) -> None:
    for request_id in ("", "a b", "x" * 65, "a/b", None):
        body = {"request_id": request_id, "outcome": 1}
        assert client.post("/feedback", json=body).status_code == 422


def test_without_a_model_or_a_log_it_says_so(
    tmp_path: Any, models: Models, start: Start, settings: Settings
) -> None:
    assert send(start(settings), 1) == 503
    off = server_settings(tmp_path / "off", log_predictions=False)
    publish(off, "1", models.get("binary"))
    answer = start(off).post("/feedback", json={"request_id": "a", "outcome": 1})
    assert "ML_LOG_PREDICTIONS" in answer.json()["detail"]
