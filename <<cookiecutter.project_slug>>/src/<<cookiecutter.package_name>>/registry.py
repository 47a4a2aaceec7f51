"""The model registry: register, validate, promote, roll back, download, sync.

Versions live in MLflow's registry. The alias ``staging`` is the newest registered version,
``production`` is the one that the server answers with: one pointer, moved in one step.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from . import model_card
from .bundle import Bundle, RunReference, read_bundle
from .errors import ProjectError
from .experiment import read_experiment
from .holdout import Holdout, read_holdout
from .logged_model import BUNDLE_PATH, EVALUATION_PATH, REPORTS_PATH, log_model
from .mlflow_client import connect, is_refusal, mlflow
from .promotions import (
    INTENDED,
    UNDONE,
    Action,
    Move,
    PromotionError,
    PromotionRecord,
    previous_versions,
)
from .served_models import PRODUCTION, add_version, write_aliases
from .settings import Settings
from .tracking import mirror
from .trained_model import BUNDLE_FOLDER, EVALUATION_FILE, MODEL_URI_FILE, REPORTS_FOLDER
from .verdict import Verdict
from .versions import VALIDATION_TAG, Version

STAGING = "staging"
VERDICT_TAG = "verdict"
PASSED, FAILED = "passed", "failed"
VERDICTS_FOLDER = "verdicts"
SETTLING_SECONDS = (0.05, 0.1, 0.2)


class RegistryError(ProjectError):
    """The registry has no such version, or nothing to register."""


class VerdictSummary(BaseModel):
    """The gate's answer as a tag: against what, what failed, and where the figures are."""

    model_config = ConfigDict(frozen=True)

    version: str
    production: str | None
    judged_at: datetime
    failed: tuple[str, ...] = ()
    artifact: str = ""
    sha256: str = ""


class Registry:
    """One model's versions, aliases and moves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = settings.model_name
        self._client: Any = connect(settings)

    def register(self, folder: Path | None = None) -> Version:
        """Make a version of a trained model and point ``staging`` at it.

        Args:
            folder: a trained model's folder; default: the newest one.

        Raises:
            RegistryError: there is no trained model.
            BundleError: its bundle is not intact.
        """
        folder = folder or _newest_model(self._settings)
        bundle = read_bundle(folder / BUNDLE_FOLDER)
        try:
            self._client.create_registered_model(self._name)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        stored = self._client.get_logged_model(_stored_model(folder).removeprefix("models:/"))
        created = self._client.create_model_version(
            self._name,
            source=stored.artifact_location,
            run_id=stored.source_run_id,
            model_id=stored.model_id,
            tags=_lineage_tags(bundle),
        )
        self._client.set_registered_model_alias(self._name, STAGING, created.version)
        return self._mirrored(self.version(str(created.version)))

    def versions(self) -> list[Version]:
        """Every version, newest first."""
        aliases = self._aliases()
        found = self._client.search_model_versions(f"name = '{self._name}'", max_results=1_000)
        versions = [_as_version(item, aliases) for item in found]
        return sorted(versions, key=lambda version: int(version.number), reverse=True)

    def version(self, reference: str) -> Version:
        """A version by its number or by an alias.

        Raises:
            RegistryError: there is none, and which there are.
        """
        return self._version(reference, self._aliases())

    def _version(self, reference: str, aliases: dict[str, str]) -> Version:
        number = aliases.get(reference, reference)
        try:
            return _as_version(self._client.get_model_version(self._name, number), aliases)
        except mlflow.exceptions.MlflowException as error:
            numbers = ", ".join(version.number for version in self.versions())
            known = (
                f"versions: {numbers}; aliases: {', '.join(sorted(aliases)) or 'none'}"
                if numbers
                else "it has none yet: run `registry register` after `train`"
            )
            raise RegistryError(
                f"{self._name} has no version or alias {reference!r}; {known}"
            ) from error

    def validate(self, reference: str = STAGING, new_signature: bool = False) -> Verdict:
        """Judge a version against the baseline and production and store the verdict on it.

        Args:
            reference: a version's number or an alias.
            new_signature: whether it may read or answer other things than production does.
        """
        # Judging alone takes scikit-learn, whose import is half the time of every other command.
        from .gate import judge

        version = self.version(reference)
        with self._files(version.number) as files:
            candidate = read_bundle(files / BUNDLE_PATH)
            holdout = read_holdout(files / EVALUATION_PATH, candidate.signature)
        verdict = judge(
            self._settings,
            version.number,
            candidate,
            holdout,
            self._production(version.number),
            new_signature,
        )
        self._store(verdict)
        return verdict

    def verdict(self, reference: str) -> Verdict:
        """What the gate said of a version when it last judged it.

        Raises:
            RegistryError: it was not judged yet, or what is stored is not what was judged.
        """
        version = self.version(reference)
        summary = _summary(version)
        if summary is None or not summary.artifact:
            raise RegistryError(f"version {version.number} was not judged: run `registry validate`")
        with self._files(version.number, summary.artifact) as path:
            content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != summary.sha256:
            raise RegistryError(
                f"the verdict of version {version.number} was altered: run `registry validate`"
            )
        return Verdict.model_validate_json(content)

    def promote(self, reference: str = STAGING, reason: str = "", force: bool = False) -> Version:
        """Point ``production`` at a version that passed the gate.

        Args:
            reference: a version's number or an alias.
            reason: why; it goes into the record.
            force: whatever the gate says; the record shows it, and the reason must be given.

        Raises:
            PromotionError: it has no passed verdict against the present production version.
        """
        if force and not reason.strip():
            raise PromotionError("--force goes past the gate: say why with --reason")
        with self._moving() as (record, aliases):
            version = self._version(reference, aliases)
            current = aliases.get(PRODUCTION)
            if version.number == current:
                raise PromotionError(f"version {current} is in production already")
            if not force:
                _require_passed(version, current)
            action: Action = "force" if force else "promote"
            self._move(record, action, current, version.number, reason)
        aliased = replace(version, aliases=tuple(sorted((*version.aliases, PRODUCTION))))
        return self._mirrored(aliased)

    def rollback(self, reason: str = "") -> Version:
        """Point ``production`` back at the version before; once more goes back one further.

        Raises:
            PromotionError: there is no version before, or production was moved by other means.
        """
        with self._moving() as (record, aliases):
            current = aliases.get(PRODUCTION)
            earlier = previous_versions(record.moves())
            if current is None or len(earlier) < 2:
                raise PromotionError("there is no earlier production version to roll back to")
            if earlier[-1] != current:
                raise PromotionError(
                    f"production is version {current}, but the record says {earlier[-1]}: it was "
                    "moved by other means; promote the version you want"
                )
            self._move(record, "rollback", current, earlier[-2], reason)
        return self._mirrored(self.version(PRODUCTION))

    def history(self) -> list[Move]:
        """Every move of production, oldest first."""
        return PromotionRecord(self._settings).moves()

    def download(self, reference: str, destination: Path) -> Version:
        """Copy a version's verified bundle into a new folder.

        Raises:
            RegistryError: the destination exists.
            BundleError: the bundle is not intact.
        """
        if destination.exists():
            raise RegistryError(f"{destination} exists: name a folder that is not there yet")
        version = self.version(reference)
        with self._files(version.number) as files:
            read_bundle(files / BUNDLE_PATH)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(files / BUNDLE_PATH, destination)
        return version

    def sync(self) -> dict[str, str]:
        """Bring the bundles of all aliases to the served folder, then the aliases.

        What the experiment names besides comes last: no mistake in it holds production up.

        Returns:
            The aliases with their versions.

        Raises:
            BundleError: a bundle is not intact; the served aliases stay as they were.
            ExperimentError: the experiment's description is not valid.
            RegistryError: the experiment names an unknown version.
        """
        aliases = self._aliases()
        self._serve(set(aliases.values()))
        write_aliases(self._settings.served_dir, aliases)
        if experiment := read_experiment(self._settings.experiment_path):
            named = {self.version(model).number for model in experiment.models}
            self._serve(named - set(aliases.values()))
        return aliases

    def bundle(self, reference: str) -> Bundle:
        """A version's verified bundle."""
        with self._files(self.version(reference).number) as files:
            return read_bundle(files / BUNDLE_PATH)

    def holdout(self, reference: str) -> Holdout:
        """The hold-out rows that were stored with a version."""
        with self._files(self.version(reference).number) as files:
            signature = read_bundle(files / BUNDLE_PATH).signature
            return read_holdout(files / EVALUATION_PATH, signature)

    def write_card(self, reference: str, folder: Path) -> list[Path]:
        """Write a version's model card into a folder: Markdown with its pictures, and one HTML.

        Returns:
            The Markdown file and the HTML file.
        """
        version = self.version(reference)
        summary = _summary(version)
        verdict = self.verdict(version.number) if summary and summary.artifact else None
        folder.mkdir(parents=True, exist_ok=True)
        with self._files(version.number) as files:
            bundle = read_bundle(files / BUNDLE_PATH)
            pictures = [
                Path(shutil.copy(path, folder))
                for path in sorted((files / REPORTS_PATH).glob("*.png"))
            ]
        card = model_card.markdown(version, bundle, verdict, pictures)
        title = model_card.TITLE.format(name=self._name, number=version.number)
        contents = {"card.md": card, "card.html": model_card.html(card, title, pictures)}
        for name, text in contents.items():
            (folder / name).write_text(text, encoding="utf-8")
        return [folder / name for name in contents]

    def _mirrored(self, version: Version) -> Version:
        mirror(self._settings, version)
        return version

    def _serve(self, numbers: set[str]) -> None:
        for number in sorted(numbers):
            with self._files(number) as files:
                add_version(self._settings.served_dir, number, files / BUNDLE_PATH)

    @contextmanager
    def _moving(self) -> Iterator[tuple[PromotionRecord, dict[str, str]]]:
        """Hold the lock; gives the record, with every move settled, and the aliases."""
        record = PromotionRecord(self._settings)
        with record.locked():
            yield record, self._settled(record)

    def _settled(self, record: PromotionRecord) -> dict[str, str]:
        """Settle what a kill left open, and return the aliases.

        Production goes back where a move that was settled as undone came through after all.
        """
        moves = record.moves()
        if opened := [move for move in moves if move.state == INTENDED]:
            for move in opened:
                record.settle(move.id, done=self._arrived(move.to_version))
            moves = record.moves()
        aliases = self._aliases()
        recorded = previous_versions(moves)[-1:]
        undone = {move.to_version for move in moves if move.state == UNDONE}
        current = aliases.get(PRODUCTION)
        if recorded and current not in recorded and current in undone:
            self._client.set_registered_model_alias(self._name, PRODUCTION, recorded[0])
            aliases[PRODUCTION] = recorded[0]
        return aliases

    def _arrived(self, version: str) -> bool:
        """Whether production is this version; a killed command's request may be under way yet."""
        for pause in SETTLING_SECONDS:
            if self._aliases().get(PRODUCTION) == version:
                return True
            time.sleep(pause)
        return self._aliases().get(PRODUCTION) == version

    def _move(
        self, record: PromotionRecord, action: Action, current: str | None, to: str, reason: str
    ) -> None:
        number = record.intend(action, current, to, reason)
        try:
            self._client.set_registered_model_alias(self._name, PRODUCTION, to)
        except mlflow.exceptions.MlflowException as error:
            if is_refusal(error):
                record.settle(number, done=False)
                raise PromotionError(f"MLflow refuses to move production: {error}") from error
            raise PromotionError(
                f"MLflow did not answer ({error}): whether production is version {to} now is "
                "settled by the next promotion, which may be this one again"
            ) from error
        record.settle(number, done=True)

    def _store(self, verdict: Verdict) -> None:
        """Keep every figure as a file of the version; a tag is too short for it and names it."""
        content = verdict.model_dump_json(indent=2).encode()
        place = f"{VERDICTS_FOLDER}/{self._name}/{verdict.version}"
        name = f"{verdict.judged_at:%Y%m%dT%H%M%S.%f}.json"
        with tempfile.TemporaryDirectory(prefix="verdict-") as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            self._client.log_model_artifact(self._model_id(verdict.version), str(path), place)
        summary = VerdictSummary(
            version=verdict.version,
            production=verdict.production,
            judged_at=verdict.judged_at,
            failed=tuple(verdict.failed),
            artifact=f"{place}/{name}",
            sha256=hashlib.sha256(content).hexdigest(),
        )
        for tag, value in (
            (VERDICT_TAG, summary.model_dump_json()),
            (VALIDATION_TAG, PASSED if verdict.passed else FAILED),
        ):
            self._client.set_model_version_tag(self._name, verdict.version, tag, value)

    def _aliases(self) -> dict[str, str]:
        try:
            aliases = self._client.get_registered_model(self._name).aliases
        except mlflow.exceptions.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {str(alias): str(number) for alias, number in aliases.items()}

    def _production(self, candidate: str) -> tuple[str, Bundle] | None:
        current = self._aliases().get(PRODUCTION)
        if current is None or current == candidate:
            return None
        return current, self.bundle(current)

    def _model_id(self, number: str) -> str:
        """The stored model behind a version; MLflow keeps its place only."""
        source = str(self._client.get_model_version(self._name, number).source)
        for part in reversed(source.split("/")):
            if part.startswith("m-"):
                return part
        raise RegistryError(
            f"version {number} lies at {source}, which `registry register` does not make: register "
            "the trained model's folder"
        )

    @contextmanager
    def _files(self, number: str, path: str = "") -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="model-") as folder:
            uri = f"models:/{self._name}/{number}/{path}".rstrip("/")
            yield Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))


def _summary(version: Version) -> VerdictSummary | None:
    tag = version.tags.get(VERDICT_TAG)
    return None if tag is None else VerdictSummary.model_validate_json(tag)


def _require_passed(version: Version, current: str | None) -> None:
    summary = _summary(version)
    if (
        version.validation != PASSED
        or summary is None
        or summary.version != version.number
        or summary.failed  # the two tags are written in turn: a kill may leave two verdicts' own
    ):
        raise PromotionError(
            f"version {version.number} has not passed the gate ({version.validation}): `registry "
            f"validate {version.number}` says why, or judges it"
        )
    if summary.production != current:
        raise PromotionError(
            f"version {version.number} was judged against production "
            f"{summary.production or 'none'}, which is {current or 'none'} by now: validate it "
            "again"
        )


def _stored_model(folder: Path) -> str:
    """The model's address in the registry's store; it is stored where that is still to be done.

    So it is where the tracker is not MLflow, and where MLflow went away while the run was logged:
    that run gets what it lacks and ends well.
    """
    path = folder / MODEL_URI_FILE
    if path.exists():
        return path.read_text(encoding="utf-8")
    metadata = read_bundle(folder / BUNDLE_FOLDER).metadata
    example = read_holdout(folder / EVALUATION_FILE, metadata.signature).features
    if metadata.run is None or not _is_known(metadata.run):
        return log_model(folder, example)
    with mlflow.start_run(run_id=metadata.run.id):
        mlflow.log_metrics(metadata.summary())
        mlflow.log_artifacts(str(folder / REPORTS_FOLDER), REPORTS_FOLDER)
        uri = log_model(folder, example)
    path.write_text(uri, encoding="utf-8")
    return uri


def _is_known(run: RunReference) -> bool:
    if run.tracker != "mlflow":
        return False
    try:
        mlflow.get_run(run.id)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _newest_model(settings: Settings) -> Path:
    bundles = settings.models_dir.glob(f"*/{BUNDLE_FOLDER}")
    folders = sorted((bundle.parent for bundle in bundles), key=lambda path: path.stat().st_mtime)
    if not folders:
        raise RegistryError(f"no trained model in {settings.models_dir}: run `train` first")
    return folders[-1]


def _lineage_tags(bundle: Bundle) -> dict[str, str]:
    metadata = bundle.metadata
    tags = {
        "task": metadata.signature.task,
        "as_of": metadata.as_of.isoformat(),
        "data_fingerprint": metadata.data_fingerprint,
        "git_commit": metadata.git_commit or "unknown",
        metadata.primary_metric: f"{metadata.metrics[metadata.primary_metric]:.4f}",
        "gain_over_baseline": str(metadata.gain_over_baseline),
    }
    if metadata.run is not None:
        tags["run_tracker"] = metadata.run.tracker
        tags["run_id"] = metadata.run.id
        tags["run_url"] = metadata.run.url or ""
    return tags


def _as_version(item: Any, aliases: dict[str, str]) -> Version:
    number = str(item.version)
    return Version(
        number=number,
        aliases=tuple(sorted(alias for alias, named in aliases.items() if named == number)),
        created_at=datetime.fromtimestamp(item.creation_timestamp / 1_000, timezone.utc),
        tags={str(name): str(value) for name, value in item.tags.items()},
    )
