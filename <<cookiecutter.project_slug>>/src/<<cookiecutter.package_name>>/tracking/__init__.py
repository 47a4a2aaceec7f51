"""Experiment tracking behind one small interface.

The module beside this file (one of them, chosen when the project was generated) does the work;
``start_run`` finds it, so that no other code names a tracker.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from ..settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from ..bundle import RunReference
    from ..versions import Version

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class TrainingData:
    """The data set of a run: a few rows to look at, and what identifies the whole."""

    sample: pd.DataFrame
    rows: int
    label: str
    source: str
    fingerprint: str


class Run(Protocol):
    """One tracked training run; every method may be called until the run's context ends."""

    @property
    def reference(self) -> RunReference:
        """What a registered model says about its origin."""

    def log_parameters(self, parameters: Mapping[str, Scalar]) -> None:
        """Record what was chosen before the training."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record what was measured; ``step`` numbers the validation fold."""

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Record lineage, such as the data's fingerprint and the git commit."""

    def log_training_data(self, data: TrainingData) -> None:
        """Record which data set the run was trained on."""

    def log_reports(self, folder: Path) -> None:
        """Store the pictures (PNG) and tables (CSV) of a folder."""

    def log_model(self, folder: Path, input_example: pd.DataFrame) -> str | None:
        """Store a trained model's folder (bundle and evaluation data).

        Returns:
            The ``models:/`` address that the registry can take up, where the tracker is also the
            registry's store; otherwise None.
        """


@contextmanager
def start_run(settings: Settings, name: str) -> Iterator[Run]:
    """Open a run of the project's tracker; an exception inside marks the run as failed.

    Raises:
        RuntimeError: the package holds no tracker, or several.
    """
    with _tracker().start_run(settings, name) as run:
        yield run


def where_to_look(settings: Settings) -> str:
    """The command or the address that shows the runs."""
    return str(_tracker().where_to_look(settings))


def mirror(settings: Settings, version: Version) -> None:
    """Tell the tracker that a version was registered, or took an alias."""
    _tracker().mirror(settings, version)


def not_mirrored(settings: Settings) -> str:
    """Which versions the tracker was not told of yet and what tells it; empty where none waits."""
    return str(_tracker().not_mirrored(settings))


def variable_prefix() -> str:
    """How the names of the tracker's own environment variables begin."""
    return f"{_module_name().upper()}_"


def _tracker() -> ModuleType:
    return importlib.import_module(f"{__name__}.{_module_name()}")


def _module_name() -> str:
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if len(modules) != 1:
        raise RuntimeError(
            f"{__name__} must hold exactly one tracker's module and holds "
            f"{', '.join(modules) or 'none'}: remove the others"
        )
    return modules[0]
