"""The models that answer, reloaded whenever the served folder or the experiment names others."""

from __future__ import annotations

import ctypes
import logging
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import CHECKSUM_FILE, CONTENT_FILES, BundleError, Metadata, Profile, Scorer
from ..errors import ProjectError
from ..experiment import Experiment, ExperimentError, read_experiment
from ..schema import Blocks
from ..served_models import PRODUCTION, read_aliases, served_bundle, version_folder
from .compiled import CompiledReader
from .metrics import ServerMetrics
from .router import Router, variant_versions
from .rows import InvalidRowsError, RowReader, Rows, ValueProblem

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30.0

Answer = tuple[Any, float | None]
State = tuple[object, ...]


@dataclass(frozen=True)
class ServedModel:
    """A model that answers requests. Safe to share by threads."""

    version: str
    metadata: Metadata
    profile: Profile
    scorer: Scorer
    reader: RowReader
    compiled: CompiledReader

    def score(self, rows: Rows) -> tuple[Blocks, NDArray[np.float32]]:
        """Check and score the rows of a request.

        Returns:
            The model's input and its scores.

        Raises:
            InvalidRowsError: a value is not valid, or the model's answer to a row is not finite.
        """
        blocks = self.reader.read(rows)
        scores = self.scorer.scores(blocks)
        finite = finite_rows(scores)
        if not finite.all():
            where = rows[int(finite.argmin())][0]
            detail = f"the model has no finite answer to {where}: its values are too extreme"
            raise InvalidRowsError([ValueProblem(pointer=where, detail=detail)])
        return blocks, scores

    @property
    def example(self) -> dict[str, Any]:
        """A typical row by name: medians, and the commonest categories."""
        values: dict[str, Any] = {}
        for feature in self.metadata.signature.features:
            if feature.type == "string":
                strings = self.profile.strings.get(feature.name)
                counts = strings.counts if strings else {}
                values[feature.name] = max(counts, key=counts.__getitem__, default="")
            else:
                numbers = self.profile.numbers.get(feature.name)
                edges = numbers.edges if numbers else ()
                median = edges[len(edges) // 2] if edges else 0.0
                values[feature.name] = round(median) if feature.type == "int" else median
        return values


@dataclass(frozen=True)
class Lineup:
    """All that answers requests at a time; replaced as a whole.

    ``models`` stand in the order of the router's variants, the control first.
    """

    models: tuple[ServedModel, ...]
    router: Router
    shadow: ServedModel | None = None
    experiment: Experiment | None = None

    @property
    def control(self) -> ServedModel:
        """The model of whoever is in no experiment."""
        return self.models[0]

    @cached_property
    def is_uniform(self) -> bool:
        """Whether every variant reads the same features."""
        return all(_alike(self.control, model) for model in self.models)

    @property
    def all_models(self) -> dict[str, ServedModel]:
        """Every model by its version, the shadow too."""
        arms = (*self.models, self.shadow) if self.shadow else self.models
        return {model.version: model for model in arms}

    @property
    def variants(self) -> list[tuple[str, str]]:
        """Each variant's name with the version that answers for it."""
        versions = (model.version for model in self.models)
        variants = list(zip(self.router.names, versions, strict=True))
        if self.shadow and self.experiment and self.experiment.shadow:
            variants.append((self.experiment.shadow.name, self.shadow.version))
        return variants


def finite_rows(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows have an answer."""
    finite: NDArray[np.bool_] = np.isfinite(scores).reshape(len(scores), -1)
    return np.asarray(finite.all(axis=1))


def load_model(served: Path, version: str) -> ServedModel:
    """Read, verify and try a version.

    Raises:
        BundleError: it is missing, altered, or does not answer as its signature says.
    """
    bundle = served_bundle(served, version)
    signature = bundle.signature
    model = ServedModel(
        version,
        bundle.metadata,
        bundle.profile,
        bundle.scorer(),
        RowReader(signature),
        CompiledReader(signature),
    )
    scores = model.scorer.scores(model.reader.read([("#", model.example)]))
    expected = (1, len(signature.classes)) if signature.classes else (1,)
    if scores.shape != expected:
        raise BundleError(
            f"version {version} answers with the shape {scores.shape}, its signature means "
            f"{expected}: export it again"
        )
    return model


class ModelStore:
    """Holds what a served folder and an experiment say is to answer, if there is a model.

    Whatever cannot be loaded is refused: logged and counted once for each state of the files, and
    what answered before goes on. A refused state is tried again after RETRY_SECONDS.
    """

    def __init__(self, served: Path, experiment_path: Path, metrics: ServerMetrics) -> None:
        self.current: Lineup | None = None
        self._served = served
        self._experiment_path = experiment_path
        self._metrics = metrics
        self._loaded: State | None = None
        self._production: str | None = None
        self._refused: tuple[State | None, str] | None = None
        self._retry_at = 0.0

    def refresh(self) -> None:
        """Load what is named now if it is other than what answers."""
        if self._refresh(self._experiment_path) or not self._experiment_path.exists():
            return
        if self.current is None or self._production_moved():
            self._refresh(None)  # production answers until the experiment is mended

    def _production_moved(self) -> bool:
        try:
            return read_aliases(self._served).get(PRODUCTION, self._production) != self._production
        except BundleError:
            return False

    def _refresh(self, experiment_path: Path | None) -> bool:
        """Whether nothing was refused."""
        state: State | None = None
        try:
            aliases = self._aliases()
            if not aliases.keys() & {PRODUCTION}:
                return True
            state = (experiment_path and _identity(experiment_path), *sorted(aliases.items()))
            experiment = read_experiment(experiment_path) if experiment_path else None
            versions, shadow = variant_versions(experiment, self._served, aliases)
            named = [*versions, shadow] if shadow else versions
            files = {version: self._files(version) for version in named}
            state = (experiment, tuple(named), *files.items())
            if state == self._loaded:
                self._refused = None
            elif not self._waits(state):
                models = self._models(files)
                arms = tuple(models[version] for version in versions)
                shadowing = models[shadow] if shadow else None
                lineup = Lineup(arms, Router(experiment), shadowing, experiment)
                self._swap(state, lineup)
                self._production = aliases[PRODUCTION]
        except Exception as error:
            self._refuse(state, error)
            return False
        return True

    def _aliases(self) -> dict[str, str]:
        aliases = read_aliases(self._served)
        if self.current and PRODUCTION not in aliases:
            raise BundleError(f"{self._served} names no {PRODUCTION} version any more")
        return aliases

    def _files(self, version: str) -> State:
        folder = version_folder(self._served, version)
        return tuple(_identity(folder / name) for name in (*CONTENT_FILES, CHECKSUM_FILE))

    def _models(self, files: dict[str, State]) -> dict[str, ServedModel]:
        """Load the versions whose files are other than those that answer now."""
        loaded = self.current.all_models if self.current else {}
        known = set(self._loaded[2:]) if self._loaded else set()
        return {
            version: loaded[version]
            if (version, state) in known
            else load_model(self._served, version)
            for version, state in files.items()
        }

    def _waits(self, state: State) -> bool:
        refused = self._refused and self._refused[0]
        return refused == state and time.monotonic() < self._retry_at

    def _swap(self, state: State, lineup: Lineup) -> None:
        if lineup.shadow and any(not _alike(lineup.shadow, model) for model in lineup.models):
            raise ExperimentError("the shadow reads other features than the variants")
        self._metrics.serve(lineup)
        self.current, self._loaded, self._refused = lineup, state, None
        _return_memory()
        self._metrics.reloads.labels("loaded").inc()
        model_name = lineup.control.metadata.model_name
        logger.info("version %s of %s is loaded", lineup.control.version, model_name)
        if lineup.experiment:
            arms = ", ".join(f"{name}: version {version}" for name, version in lineup.variants)
            logger.info("the experiment %s runs (%s)", lineup.experiment.name, arms)

    def _refuse(self, state: State | None, error: Exception) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        refused = (state, str(error))
        if refused == self._refused:
            return
        self._refused = refused
        self._metrics.reloads.labels("refused").inc()
        current = self.current and self.current.control.version
        logger.error(
            "refused (%s): %s",
            f"version {current} keeps serving" if current else "no model",
            error,
            exc_info=None if isinstance(error, ProjectError) else error,
        )


def _return_memory() -> None:
    """Give what reading a model took back to the system: tens of megabytes with glibc."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _alike(one: ServedModel, other: ServedModel) -> bool:
    return one.metadata.signature.features == other.metadata.signature.features


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; None without the file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
