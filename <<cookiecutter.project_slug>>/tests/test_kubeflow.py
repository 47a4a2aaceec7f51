"""What is compiled for a cluster, and what kfp's own client sends, to a stand-in that listens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from <<cookiecutter.package_name>>.kubeflow import (
    STEPS,
    SubmitError,
    compile_pipeline,
    step_variables,
    submit,
)
from <<cookiecutter.package_name>>.settings import Settings

TOKEN = "a-bearer-token"


@dataclass
class Kubeflow:
    """The part of Kubeflow's API that runs are handed to."""

    host: str
    status: int = 200
    requests: list[tuple[str, str | None, Any]] = field(default_factory=list)

    def body(self, path: str) -> Any:
        [body] = [body for asked, _, body in self.requests if asked == path and body]
        return body


@contextmanager
def kubeflow(status: int = 200) -> Iterator[Kubeflow]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = self.path.startswith("/apis/v2beta1/experiments")
            self._answer({} if listed else {"multi_user": False}, status)

        def do_POST(self) -> None:
            ids = {"experiment_id": "e1", "run_id": "r1", "recurring_run_id": "c1"}
            length = int(self.headers["Content-Length"])
            self._answer(ids, status, json.loads(self.rfile.read(length)))

        def _answer(self, content: Any, code: int, body: Any = None) -> None:
            path, token = self.path.partition("?")[0], self.headers["Authorization"]
            server.requests.append((path, token, body))
            payload = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Kubeflow(f"http://127.0.0.1:{listener.server_port}", status)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()


def for_cluster(settings: Settings, host: str = "") -> Settings:
    return Settings(
        **{name: getattr(settings, name) for name in settings.model_fields_set},
        kubeflow_host=host,
        kubeflow_token=TOKEN,
        kubeflow_namespace="ml",
        kubeflow_service_account="pipeline",
        pipeline_root="s3://bucket/pipelines",
        pipeline_secret="stores",  # pragma: allowlist secret
        pipeline_secret_keys=["MLFLOW_TRACKING_URI", "AWS_SECRET_ACCESS_KEY"],
        pipeline_image="registry.example/jobs@sha256:" + "0" * 64,
        pipeline_accelerator="nvidia.com/gpu",
        raw_data="s3://bucket/raw",
        promotion_database="postgresql://user:password@db/promotions",  # pragma: allowlist secret
        search_budget=3,
    )


def executors(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix("exec-").replace("-", "_"): executor["container"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
    }


def test_the_yaml_holds_every_step_with_what_a_cluster_gives_it(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "build" / "pipeline.yaml"
    compile_pipeline(for_cluster(settings), path)
    text = path.read_text(encoding="utf-8")
    spec, platform = yaml.safe_load_all(text)
    containers = executors(spec)
    assert set(containers) == set(STEPS)
    assert "password" not in text
    assert TOKEN not in text
    for container in containers.values():
        assert container["image"].startswith("registry.example/jobs@sha256:")
        variables = {item["name"]: item["value"] for item in container["env"]}
        assert variables == {"ML_BOOTSTRAP_RESAMPLES": "40", "ML_RAW_DATA": "s3://bucket/raw"}
    trains = containers["evaluate"]["resources"]
    assert trains["resourceCpuLimit"] == "2"
    assert trains["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert containers["check_data"]["resources"]["resourceMemoryLimit"] == "4G"
    given = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(given) == {f"exec-{name.replace('_', '-')}" for name in STEPS}
    for executor in given.values():
        keys = {item["secretKey"] for item in executor["secretAsEnv"][0]["keyToEnv"]}
        assert keys == {"MLFLOW_TRACKING_URI", "AWS_SECRET_ACCESS_KEY"}
        assert executor["activeDeadlineSeconds"] == "7200"
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["build-features"]["retryPolicy"]["maxRetryCount"] == 2
    assert "retryPolicy" not in tasks["check-data"]
    [loop] = [task for name, task in tasks.items() if name.startswith("for-loop")]
    assert len(json.loads(loop["parameterIterator"]["items"]["raw"])) == 3
    assert list((tmp_path / "build").iterdir()) == [path]


def test_a_run_is_what_the_client_sends(settings: Settings) -> None:
    with kubeflow() as server:
        assert submit(for_cluster(settings, server.host), as_of="2025-06-01T00:00:00") == "r1"
    assert {token for _, token, _ in server.requests} == {f"Bearer {TOKEN}"}
    assert server.body("/apis/v2beta1/experiments")["namespace"] == "ml"
    body = server.body("/apis/v2beta1/runs")
    assert body["experiment_id"] == "e1"
    assert body["service_account"] == "pipeline"
    assert body["runtime_config"] == {
        "parameters": {"as_of": "2025-06-01T00:00:00"},
        "pipeline_root": "s3://bucket/pipelines",
    }
    assert set(executors(body["pipeline_spec"]["pipeline_spec"])) == set(STEPS)
    assert "kubernetes" in body["pipeline_spec"]["platform_spec"]["platforms"]


def test_a_schedule_is_a_recurring_run(settings: Settings) -> None:
    with kubeflow() as server:
        assert submit(for_cluster(settings, server.host), cron="0 0 3 * * *") == "c1"
    body = server.body("/apis/v2beta1/recurringruns")
    assert body["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert body["no_catchup"] is True
    assert body["runtime_config"]["pipeline_root"] == "s3://bucket/pipelines"


def test_a_refusal_is_a_line(settings: Settings) -> None:
    with (
        kubeflow(status=403) as server,
        pytest.raises(SubmitError, match=r"ML_KUBEFLOW_HOST=http://127\.0\.0\.1:.* does not take"),
    ):
        submit(for_cluster(settings, server.host))


def test_a_cluster_needs_its_settings(settings: Settings) -> None:
    with pytest.raises(SubmitError, match="needs ML_KUBEFLOW_HOST, ML_PIPELINE_ROOT, ML_RAW_DATA"):
        submit(settings)


def test_steps_get_the_settings_that_were_chosen_and_no_others(settings: Settings) -> None:
    chosen = settings.model_copy(
        update={
            "model_parameters": {"max_iter": 3},
            "port": 9000,
            "mlflow_tracking_uri": "http://m",
        }
    )
    variables = {"ML_BOOTSTRAP_RESAMPLES": "40", "ML_MODEL_PARAMETERS": '{"max_iter": 3}'}
    assert step_variables(chosen) == variables
    assert step_variables(chosen, everything=True) == {
        **variables,
        "MLFLOW_TRACKING_URI": "http://m",
    }
