"""Tracking with Weights & Biases: files on this machine by default, the service by ``WANDB_MODE``.

Offline runs lie in ``wandb/`` of the home folder; ``wandb sync FOLDER`` uploads one later. Versions
and their aliases are linked into the service's registry, now or later by ``registry link``.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from ..bundle import RunReference, read_bundle
from ..console import err
from ..errors import ProjectError
from ..settings import Settings
from ..trained_model import BUNDLE_FOLDER, EVALUATION_FILE
from . import Run, Scalar, TrainingData

if TYPE_CHECKING:
    import pandas as pd

    from ..versions import Version

# The library and the process that it starts read this when they start.
os.environ["WANDB_ERROR_REPORTING"] = "false"

import wandb

STEP = "step"
ANSWER_SECONDS = 15
EXAMPLE_ROWS = 5
REGISTRY = "wandb-registry-model"


class WandbSettings(BaseSettings):
    """What W&B documents, under the names that it documents, also from ``.env``."""

    model_config = SettingsConfigDict(
        env_prefix="WANDB_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    mode: Literal["offline", "online"] = "offline"
    api_key: SecretStr | None = None
    base_url: str | None = None
    entity: str | None = None
    project: str | None = None


@contextmanager
def start_run(settings: Settings, name: str) -> Iterator[Run]:
    """Open a W&B run of the project; an exception inside marks it as failed.

    Raises:
        ProjectError: the run shall be online and there is no API key, or the service refuses it or
            does not answer.
    """
    run = _init(settings, WandbSettings(), name)
    folder = Path(run.settings.sync_dir)
    address = folder.as_uri() if run.offline else run.url
    reference = RunReference(tracker="wandb", id=run.id, url=address)
    # The run's own context manager would print the traceback of every exception.
    try:
        yield WandbRun(reference, run, settings.model_name)
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def where_to_look(settings: Settings) -> str:
    """The W&B project, or the command that shows the offline runs in the terminal."""
    own = WandbSettings()
    if own.mode == "online":
        return f"the W&B project {_project(settings, own)}"
    return f"WANDB_ERROR_REPORTING=false wandb leet {shlex.quote(str(_folder(settings)))}"


def mirror(settings: Settings, version: Version) -> None:
    """Link a version into the service's registry with its aliases, or note it down for later."""
    if version.tags.get("run_tracker") != "wandb":
        return
    path = _waiting(settings, version.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    note = {"run": version.tags["run_id"], "aliases": version.aliases}
    partial.write_text(json.dumps(note), encoding="utf-8")
    partial.replace(path)
    if WandbSettings().mode == "online":
        try:
            link(settings, [version])
        except ProjectError as error:
            err.print(f"[yellow]not linked[/]: {error}", soft_wrap=True)


def not_mirrored(settings: Settings) -> str:
    """Which versions wait for the service's registry, and what links them."""
    numbers = sorted((path.stem for path in _waiting(settings, "*").parent.glob("*.json")), key=int)
    if not numbers:
        return ""
    return (
        f"not in the registry of W&B yet: version {', '.join(numbers)}\nnext: wandb sync "
        f"{shlex.quote(str(_folder(settings)))}/offline-run-*, then registry link with "
        "WANDB_MODE=online and WANDB_API_KEY"
    )


def link(settings: Settings, versions: Iterable[Version]) -> list[str]:
    """Link the versions that wait, and those that have an alias, as they are in MLflow's registry.

    Args:
        settings: where the project's runs and links lie.
        versions: in the order in which they take their aliases.

    Returns:
        The numbers of the versions that are linked now.

    Raises:
        ProjectError: W&B does not take a link, or its run was not uploaded; it waits as before.
    """
    own, linked = WandbSettings(), []
    if own.mode != "online" or own.api_key is None:
        raise ProjectError("linking needs WANDB_MODE=online and WANDB_API_KEY")
    _keep_files_in(_folder(settings))
    for version in versions:
        path = _waiting(settings, version.number)
        if version.tags.get("run_tracker") != "wandb" or not (version.aliases or path.exists()):
            continue
        try:
            _link(settings, own, version)
        except (wandb.errors.Error, ValueError, OSError) as error:
            raise ProjectError(
                f"W&B does not link version {version.number} ({error}): check WANDB_API_KEY and "
                f"the network, upload its run {version.tags['run_id']} by `wandb sync`, then run "
                "`registry link`"
            ) from error
        path.unlink(missing_ok=True)
        linked.append(version.number)
    return linked


def _link(settings: Settings, own: WandbSettings, version: Version) -> None:
    places = {"base_url": own.base_url, "entity": own.entity}
    api = wandb.Api(
        overrides={name: place for name, place in places.items() if place},
        timeout=ANSWER_SECONDS,
        api_key=own.api_key.get_secret_value() if own.api_key else None,
    )
    run = api.run(
        "/".join(
            (own.entity or api.default_entity, _project(settings, own), version.tags["run_id"])
        )
    )
    (artifact,) = [stored for stored in run.logged_artifacts() if stored.type == "model"]
    artifact.link(f"{REGISTRY}/{settings.model_name}", aliases=list(version.aliases))


def _waiting(settings: Settings, number: str) -> Path:
    return _folder(settings) / "links" / f"{number}.json"


def _folder(settings: Settings) -> Path:
    return settings.home.resolve() / "wandb"


def _project(settings: Settings, own: WandbSettings) -> str:
    return own.project or settings.model_name


def _init(settings: Settings, own: WandbSettings, name: str) -> Any:
    if own.mode == "online" and own.api_key is None:
        raise ProjectError(
            "WANDB_MODE=online needs WANDB_API_KEY: set it, or leave WANDB_MODE out to keep the "
            "run on this machine and upload it later with `wandb sync`"
        )
    folder = _folder(settings)
    _keep_files_in(folder)
    chosen = {
        "mode": own.mode,
        "api_key": own.api_key.get_secret_value() if own.api_key else None,
        "base_url": own.base_url,
        "entity": own.entity,
        "project": _project(settings, own),
        "run_name": name,
        "root_dir": str(folder.parent),
    }
    wished = wandb.Settings(
        **{key: value for key, value in chosen.items() if value is not None},
        console="off",
        disable_git=True,
        init_timeout=ANSWER_SECONDS,
        reinit="create_new",
        save_code=False,
        silent=True,
        x_disable_machine_info=True,
    )
    try:
        return wandb.init(settings=wished)
    except wandb.errors.Error as error:
        raise ProjectError(
            f"W&B does not take the run ({error}): check WANDB_API_KEY and the network, or leave "
            "WANDB_MODE out to keep the run on this machine"
        ) from error


def _keep_files_in(folder: Path) -> None:
    for kind in ("artifact", "cache", "config", "data"):
        os.environ[f"WANDB_{kind.upper()}_DIR"] = str(folder / kind)
    folder.mkdir(parents=True, exist_ok=True)
    # The project's own .gitignore names the folder only as long as W&B is its tracker.
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")


class WandbRun:
    """A W&B run."""

    def __init__(self, reference: RunReference, run: Any, model_name: str) -> None:
        self.reference = reference
        self._run = run
        self._model_name = model_name

    def log_parameters(self, parameters: Mapping[str, Scalar]) -> None:
        """Record what was chosen before the training."""
        self._run.config.update(dict(parameters))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record what was measured; ``step`` numbers the validation fold."""
        if step is None:
            self._run.log(dict(metrics))
            return
        # W&B's own step may only grow, and drops what comes late.
        for metric in metrics:
            self._run.define_metric(metric, step_metric=STEP, step_sync=False)
        self._run.log({STEP: step, **metrics})

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Record lineage, such as the data's fingerprint and the git commit, as ``lineage``."""
        lineage = {**self._run.config.get("lineage", {}), **tags}
        self._run.config.update({"lineage": lineage}, allow_val_change=True)

    def log_training_data(self, data: TrainingData) -> None:
        """Record which data set the run was trained on, as an artifact with a few of its rows."""
        artifact = wandb.Artifact(
            f"{self._model_name}-data",
            type="dataset",
            metadata={
                "rows": data.rows,
                "label": data.label,
                "source": data.source,
                "fingerprint": data.fingerprint,
            },
        )
        artifact.add(wandb.Table(dataframe=data.sample), "sample")
        self._run.log_artifact(artifact)

    def log_reports(self, folder: Path) -> None:
        """Store the pictures (PNG) and tables (CSV) of a folder, to look at and as files."""
        import pandas as pd

        pictures = {f"reports/{p.stem}": wandb.Image(str(p)) for p in sorted(folder.glob("*.png"))}
        tables = {
            f"reports/{path.stem}": wandb.Table(dataframe=pd.read_csv(path))
            for path in sorted(folder.glob("*.csv"))
        }
        self._run.log({**pictures, **tables})
        artifact = wandb.Artifact(f"{self._model_name}-reports", type="reports")
        for path in sorted(folder.iterdir()):
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def log_model(self, folder: Path, input_example: pd.DataFrame) -> None:
        """Store a trained model's folder as an artifact; the registry takes it from the folder.

        Raises:
            BundleError: the bundle is not intact.
        """
        metadata = read_bundle(folder / BUNDLE_FOLDER).metadata
        artifact = wandb.Artifact(
            self._model_name, type="model", metadata=metadata.model_dump(mode="json")
        )
        for path in sorted((folder / BUNDLE_FOLDER).iterdir()):
            artifact.add_file(str(path), f"{BUNDLE_FOLDER}/{path.name}")
        artifact.add_file(str(folder / EVALUATION_FILE))
        example = input_example[list(metadata.signature.names)].head(EXAMPLE_ROWS)
        with artifact.new_file("input_example.json") as file:
            file.write(example.to_json(orient="split", index=False))
        self._run.log_artifact(artifact)
