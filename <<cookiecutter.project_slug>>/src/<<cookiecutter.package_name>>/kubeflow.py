"""The pipeline's one definition, and its way to a Kubeflow cluster: as YAML, as a run.

data -> features -> checks -> candidates in parallel -> evaluation -> comparison -> registration.
kfp reads the annotations of the pipeline, so they may not be postponed in this module.
"""

import hashlib
import importlib.metadata
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from . import components
from .errors import ProjectError
from .settings import PACKAGE, Settings, variable_name

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask
    from kfp.dsl.graph_component import GraphComponent

PARALLEL_CANDIDATES = 2
STEPS = (
    "prepare_data",
    "build_features",
    "check_data",
    "train_candidate",
    "evaluate",
    "compare",
    "register",
)
TRAINING_STEPS = ("train_candidate", "evaluate")
# What the steps do not read, or may not know: it is no part of their variables.
NOT_FOR_STEPS = (
    *("home", "fixed_clock", "search_budget", "host", "port", "workers", "kubeflow_"),
    *("pipeline_", "serving_dir", "max_", "model_poll", "log_", "server_", "feature_timeout"),
    *("traces_", "drift_", "retrain_", "alert", "report_url"),
)
ADDRESSES = (
    *("MLFLOW_TRACKING_URI", "ML_PROMOTION_DATABASE"),
    *("ML_FEATURE_REGISTRY", "ML_FEATURE_REDIS"),
)


class SubmitError(ProjectError):
    """Kubeflow did not take the pipeline, or a setting for it is missing."""


def definition(
    settings: Settings, stamp: str = "", local: dict[str, str] | None = None, code: str = ""
) -> "GraphComponent":
    """The pipeline.

    Args:
        settings: the candidates, the image, and what each step is given on a cluster.
        stamp: identifies the raw data, where it is known; without it no copy is taken from a cache.
        local: variables of steps on this machine; without them the steps are made for a cluster.
        code: identifies what the steps run; default: this package and what is installed.
    """
    from kfp import dsl

    from .training import candidates

    variables = step_variables(settings) if local is None else local
    code = code or code_fingerprint()

    def component(name: str) -> Callable[..., "PipelineTask"]:
        made = dsl.component(
            getattr(components, name), base_image=settings.pipeline_image, install_kfp_package=False
        )

        def task(**inputs: Any) -> "PipelineTask":
            created = made(**inputs)
            created.set_caching_options(name not in ("compare", "register") and bool(stamp))
            for variable, value in variables.items():
                created.set_env_variable(variable, value)
            if local is None:
                _equip(created, settings, name)
            return created

        return task

    step = {name: component(name) for name in STEPS}

    @dsl.pipeline(name=settings.model_name)  # type: ignore[untyped-decorator]
    def training_pipeline(as_of: str = "") -> None:
        data = step["prepare_data"](as_of=as_of, stamp=stamp)
        now, raw = data.outputs["Output"], data.outputs["raw"]
        frame = step["build_features"](raw=raw, as_of=now, code=code).outputs["frame"]
        checks = step["check_data"](raw=raw, frame=frame, as_of=now, code=code).outputs["checks"]
        # Only artifacts go into the loop: kfp.local puts the loop's item in place of any parameter.
        with dsl.ParallelFor(candidates(settings), parallelism=PARALLEL_CANDIDATES) as parameters:
            tried = step["train_candidate"](frame=frame, checks=checks, parameters=parameters)
        collected = dsl.Collected(tried.outputs["Output"])
        model = step["evaluate"](frame=frame, as_of=now, tried=collected).outputs["model"]
        compared = step["compare"](model=model)
        with dsl.If(compared.outputs["Output"] == "yes"):
            step["register"](model=model)

    return training_pipeline


def compile_pipeline(settings: Settings, path: Path) -> None:
    """Write the pipeline as YAML for a cluster, once kfp's own schema accepts it."""
    import yaml
    from google.protobuf import json_format
    from kfp.compiler import Compiler
    from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pipeline-", dir=path.parent) as folder:
        made = Path(folder) / "pipeline.yaml"
        Compiler().compile(definition(settings), str(made))
        for content in yaml.safe_load_all(made.read_text(encoding="utf-8")):
            json_format.ParseDict(
                content, PlatformSpec() if "platforms" in content else PipelineSpec()
            )
        made.replace(path)


def submit(settings: Settings, as_of: str = "", cron: str = "") -> str:
    """Hand the pipeline to Kubeflow, once or on a schedule.

    Args:
        settings: where Kubeflow is and what the steps are given.
        as_of: what counts as now; default: the newest event of the data.
        cron: a schedule of six fields (seconds first), as in ``0 0 3 * * *``.

    Returns:
        The run's or the recurring run's id.

    Raises:
        SubmitError: a setting is missing, or Kubeflow refuses.
    """
    _require_cluster(settings)
    import kfp_server_api
    import urllib3
    from kfp.client import Client

    name, arguments = settings.model_name, {"as_of": as_of}
    shared: dict[str, Any] = {
        "pipeline_root": settings.pipeline_root,
        "service_account": settings.kubeflow_service_account or None,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        compile_pipeline(settings, path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns of servers before 2.0
                client = Client(
                    host=settings.kubeflow_host,
                    namespace=settings.kubeflow_namespace,
                    existing_token=settings.kubeflow_token.get_secret_value() or None,
                )
            experiment = client.create_experiment(name, namespace=settings.kubeflow_namespace)
            if cron:
                made = client.create_recurring_run(
                    experiment.experiment_id,
                    job_name=name,
                    cron_expression=cron,
                    pipeline_package_path=str(path),
                    params=arguments,
                    no_catchup=True,
                    **shared,
                )
                return str(made.recurring_run_id)
            run = client.create_run_from_pipeline_package(
                str(path), arguments, experiment_id=experiment.experiment_id, **shared
            )
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, TimeoutError) as error:
            reason = getattr(error, "body", None) or error
            raise SubmitError(
                f"ML_KUBEFLOW_HOST={settings.kubeflow_host} does not take the pipeline: {reason}"
            ) from error
    return str(run.run_id)


def step_variables(settings: Settings, everything: bool = False) -> dict[str, str]:
    """The environment that makes a step's ``Settings()`` equal to these.

    Args:
        settings: the ones to hand over.
        everything: whether addresses, which may hold passwords, are among them: never on a cluster.
    """
    found = {}
    for name in sorted(settings.model_fields_set):
        value, variable = getattr(settings, name), variable_name(name)
        secret = isinstance(value, SecretStr)
        if secret or value in (None, "") or name.startswith(NOT_FOR_STEPS):
            continue
        if everything or variable not in ADDRESSES + tuple(settings.pipeline_secret_keys):
            found[variable] = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return found


def code_fingerprint() -> str:
    """SHA-256 of the package's source and of every installed package's version."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    installed = {
        f"{one.metadata['Name']}=={one.version}" for one in importlib.metadata.distributions()
    }
    digest.update("\n".join(sorted(installed)).encode())
    return digest.hexdigest()


def _equip(task: "PipelineTask", settings: Settings, name: str) -> None:
    """What a step is given on a cluster."""
    from kfp import kubernetes

    task.set_memory_request(settings.pipeline_memory).set_memory_limit(settings.pipeline_memory)
    if name in TRAINING_STEPS:
        task.set_cpu_request(settings.pipeline_cpu).set_cpu_limit(settings.pipeline_cpu)
        if settings.pipeline_accelerator:
            task.set_accelerator_type(settings.pipeline_accelerator).set_accelerator_limit(1)
    if settings.pipeline_retries and name != "check_data":
        task.set_retry(settings.pipeline_retries, backoff_duration="30s", backoff_factor=2)
    if settings.pipeline_secret:
        keys = {key: key for key in settings.pipeline_secret_keys}
        kubernetes.use_secret_as_env(task, settings.pipeline_secret, keys)
    kubernetes.set_timeout(task, settings.pipeline_timeout_seconds)


def _require_cluster(settings: Settings) -> None:
    needed = {
        "ML_KUBEFLOW_HOST": settings.kubeflow_host,
        "ML_PIPELINE_ROOT": settings.pipeline_root,
        "ML_RAW_DATA": settings.raw_data,
        "ML_PIPELINE_SECRET (the registry's address is a key of it)": settings.pipeline_secret,
    }
    if missing := [name for name, value in needed.items() if not value]:
        raise SubmitError(f"{PACKAGE} needs {', '.join(missing)} to run on a cluster: set them")
