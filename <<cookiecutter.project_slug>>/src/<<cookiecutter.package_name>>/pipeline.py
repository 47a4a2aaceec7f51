"""A pipeline run on this machine: kfp.local in a process of its own, watched from here.

kfp.local rewires the log, ``print`` and the environment of the process that it runs in, and says
little of what its steps do. So it gets a process, and each step leaves its state in a folder::

    pipeline/runs/<when>/states/    one file for each step that ran
    pipeline/runs/<when>/log.txt    everything that kfp and the steps said
    pipeline/artifacts/             what the steps made; pipeline/cache/ knows from what
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from .errors import ProjectError
from .kubeflow import PARALLEL_CANDIDATES, code_fingerprint, definition, step_variables
from .settings import PACKAGE, Settings, variable_name
from .steps import DERIVED, STATES_VARIABLE
from .tracking import variable_prefix

LOG_FILE = "log.txt"
REQUEST_FILE = "request.json"
STATES_FOLDER = "states"
STATES_MOUNT = "/pipeline-states"
RUN_LABEL = "pipeline-run"
POLL_SECONDS = 0.1
STOP_SECONDS = 10
KEPT_LOG_LINES = 15
# Variables that processes would inherit, and containers do not.
HANDED_TO_CONTAINERS = ("AWS_", "MLFLOW_", "OMP_")


class PipelineError(ProjectError):
    """A step of a pipeline run failed; the message says which and why."""


@dataclass(frozen=True)
class StepState:
    """How far a step is: ``running``, ``done`` or ``failed``."""

    step: str
    state: str
    began: float
    ended: float | None = None
    error: str = ""
    result: str | dict[str, float] = ""

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended or time.time()) - self.began


def run(
    settings: Settings,
    as_of: datetime | None = None,
    cache: bool = True,
    watch: Callable[[list[StepState]], None] | None = None,
    containers: bool = False,
) -> str | None:
    """Run the pipeline on this machine with kfp.local, each step in a process of its own.

    Args:
        settings: the steps' own; artifacts go below ``settings.pipeline_dir``.
        as_of: what counts as now; default: ``settings.as_of``.
        cache: whether steps whose inputs, parameters and code are those of an earlier run are
            taken from it.
        watch: is told the steps' states while they change.
        containers: whether each step gets a container of ``settings.pipeline_image`` instead.

    Returns:
        The registered version, or None where the trained model is not better than production.

    Raises:
        PipelineError: a step failed, and nothing was registered; or the image is not to be had.
    """
    code = _image_id(settings.pipeline_image) if containers else code_fingerprint()
    stamp = hashlib.sha256(f"{code}\n{_raw_listing(settings)}".encode()).hexdigest()
    variables = {
        **step_variables(settings, everything=True),
        "ML_HOME": str(settings.home.resolve()),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "ML_PROMOTION_DATABASE": settings.promotions_uri,
    }
    if containers:  # the image has its own
        variables.pop(variable_name("feature_repo"), None)
    runs = settings.pipeline_dir / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix=f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-", dir=runs))
    (folder / STATES_FOLDER).mkdir()
    request = {
        "as_of": (as_of or settings.as_of).isoformat(),
        "code": code,
        "stamp": stamp if cache else "",
        "variables": variables,
        "containers": containers,
        "settings": settings.model_dump(mode="json", exclude={"kubeflow_token"}),
    }
    (folder / REQUEST_FILE).touch(mode=0o600)
    (folder / REQUEST_FILE).write_text(json.dumps(request), encoding="utf-8")
    with (folder / LOG_FILE).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", f"{PACKAGE}.pipeline", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(folder),
            start_new_session=True,
        )
        try:
            with _ended_by_sigterm():
                while process.poll() is None:
                    _report(watch, folder)
                    time.sleep(POLL_SECONDS)
        finally:
            _stop(process)
            if containers and process.returncode != 0:
                _remove_containers(folder)
    states = _report(watch, folder)
    if process.returncode != 0 or any(state.state != "done" for state in states):
        raise PipelineError(_reason(folder, states))
    return next((str(state.result) for state in states if state.step == "register"), None)


def read_states(folder: Path) -> list[StepState]:
    """The steps of a run that were begun, in their order."""
    files = (folder / STATES_FOLDER).glob("*.json")
    states = [StepState(**json.loads(path.read_text(encoding="utf-8"))) for path in files]
    return sorted(states, key=lambda state: state.began)


def execute(folder: Path) -> None:
    """Run the pipeline that a folder's request describes, in this process."""
    from kfp import local

    request = json.loads((folder / REQUEST_FILE).read_text(encoding="utf-8"))
    settings = Settings(**request["settings"])
    root = settings.pipeline_dir / "artifacts"
    root.mkdir(exist_ok=True)
    workspace = folder / "workspace"
    workspace.mkdir()  # else a container engine makes it, as root
    logging.getLogger().setLevel(logging.INFO)
    # It suspects images without "python" in their name, and names what only a cluster does.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="kfp")
    warnings.filterwarnings("ignore", ".*will be ignored", UserWarning)
    local.init(
        _runner(folder, settings, request["containers"]),
        pipeline_root=str(root),
        workspace_root=str(workspace),
        enable_caching=bool(request["stamp"]),
        cache_root=str(settings.pipeline_dir / "cache"),
    )
    run = definition(settings, request["stamp"], request["variables"], request["code"])
    run(as_of=request["as_of"])


def _raw_listing(settings: Settings) -> str:
    """Name, size and time of each raw file; a remote folder is another one at each run."""
    if "://" in settings.raw_data:
        return str(time.time_ns())
    folder = Path(settings.raw_data or settings.data_dir)
    return "\n".join(
        f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in DERIVED
    )


def _runner(folder: Path, settings: Settings, containers: bool) -> Any:
    from kfp import local

    if not containers:
        return local.SubprocessRunner(use_venv=False)
    from docker.types import Mount

    home = str(settings.home.resolve())
    mounts = [
        Mount(home, home, type="bind"),
        Mount(STATES_MOUNT, str(folder / STATES_FOLDER), type="bind"),
    ]
    if settings.raw_data and "://" not in settings.raw_data:
        raw = str(Path(settings.raw_data).resolve())
        mounts.append(Mount(raw, raw, type="bind", read_only=True))
    handed = (*HANDED_TO_CONTAINERS, variable_prefix())
    given = {name: value for name, value in os.environ.items() if name.startswith(handed)}
    return local.DockerRunner(
        entrypoint=[],
        environment={**given, STATES_VARIABLE: STATES_MOUNT},
        labels={RUN_LABEL: folder.name},
        mounts=mounts,
        network_mode="host",
        user=f"{os.getuid()}:{os.getgid()}",
    )


def _image_id(name: str) -> str:
    """The id of an image that the engine has."""
    import docker

    try:
        return str(docker.from_env().images.get(name).id)
    except docker.errors.APIError as error:
        raise PipelineError(
            f"ML_PIPELINE_IMAGE={name} cannot be used: {error.explanation}; `make images` builds it"
        ) from error
    except docker.errors.DockerException as error:
        raise PipelineError(
            f"no container engine answers: {error}; start Docker, let DOCKER_HOST name another "
            "engine, or run the pipeline without --containers"
        ) from error


def _remove_containers(folder: Path) -> None:
    import docker

    label = f"{RUN_LABEL}={folder.name}"
    for container in docker.from_env().containers.list(all=True, filters={"label": label}):
        container.remove(force=True)


def _environment(folder: Path) -> dict[str, str]:
    """This process's variables without settings, which each step is given one by one."""
    own = {variable_name(name) for name in Settings.model_fields}
    threads = max(1, (os.cpu_count() or 1) // PARALLEL_CANDIDATES)
    return {
        "OMP_NUM_THREADS": str(threads),
        **{name: value for name, value in os.environ.items() if name not in own},
        STATES_VARIABLE: str(folder / STATES_FOLDER),
    }


def _report(watch: Callable[[list[StepState]], None] | None, folder: Path) -> list[StepState]:
    states = read_states(folder)
    if watch:
        watch(states)
    return states


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM break a run off as Ctrl-C does: its steps are in a session of their own."""
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a run that was broken off, its steps included."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _reason(folder: Path, states: list[StepState]) -> str:
    log = f"the whole log is {folder / LOG_FILE}"
    for state in states:
        if state.state == "failed":
            return f"the step {state.step} failed, nothing was registered: {state.error}\n{log}"
    for state in states:
        if state.state == "running":
            return (
                f"the step {state.step} ended without a word, as when memory is short; nothing was "
                f"registered\n{log}"
            )
    lines = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    return "the pipeline did not run\n" + "\n".join([*lines[-KEPT_LOG_LINES:], log])


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
