"""The steps of a pipeline run as plain functions on files; components.py calls them.

Each reads and writes only what it is given. Where ``PIPELINE_STATES`` names a folder, each step
leaves there when it ran and why it failed.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .errors import ProjectError
from .settings import Settings

if TYPE_CHECKING:
    import pandas as pd

STATES_VARIABLE = "PIPELINE_STATES"
DERIVED = ("features", "labels.parquet")
OVER_BASELINE = "gain_over_baseline"
OVER_PRODUCTION = "gain_over_production"
COMPARED = (OVER_BASELINE, OVER_PRODUCTION)

P = ParamSpec("P")
R = TypeVar("R")


def step(function: Callable[P, R]) -> Callable[P, R]:
    """Report the state of a step to whoever watches the run."""

    @functools.wraps(function)
    def reported(*args: P.args, **kwargs: P.kwargs) -> R:
        folder = os.environ.get(STATES_VARIABLE)
        if not folder:
            return function(*args, **kwargs)
        path = Path(folder) / f"{function.__name__}-{uuid.uuid4().hex}.json"
        state: dict[str, Any] = {"step": function.__name__, "began": time.time()}
        _write(path, {**state, "state": "running"})
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            known = isinstance(error, ProjectError | ConnectionError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            _write(path, {**state, "state": "failed", "ended": time.time(), "error": reason})
            raise
        said = result if isinstance(result, str | dict) else ""
        _write(path, {**state, "state": "done", "ended": time.time(), "result": said})
        return result

    return reported


def log(metrics: Any, values: dict[str, float]) -> None:
    """Fill a kfp Metrics artifact; the file is what its cache looks for."""
    for name, value in values.items():
        metrics.log_metric(name, value)
    _write(Path(metrics.path), values)


@step
def prepare_data(as_of: str, target: str) -> str:
    """Take a copy of the raw data; returns the instant that counts as now."""
    settings = Settings()
    source = settings.raw_data or str(settings.data_dir)
    folder = Path(target)
    if "://" in source:
        from pyarrow import fs

        folder.mkdir(parents=True)
        fs.copy_files(source, str(folder))
    elif Path(source).is_dir():
        ignored = shutil.ignore_patterns(".*", *DERIVED)
        shutil.copytree(source, folder, copy_function=_link_or_copy, ignore=ignored)
    elif settings.raw_data:
        raise ProjectError(f"ML_RAW_DATA={source} is no folder: name one, or an s3:// address")
    else:
        folder.mkdir(parents=True)
    with TemporaryDirectory() as home:
        return as_of or _home(home, target).as_of.isoformat()


@step
def build_features(raw: str, as_of: str, target: str) -> int:
    """Compute the training frame of the raw data in a home of its own."""
    from . import feature_store, features

    with TemporaryDirectory() as home:
        settings = feature_store.in_a_home_of_its_own(_at(_home(home, raw), as_of))
        features.build(settings)
        frame = features.training_frame(settings)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(target, index=False)
    return len(frame)


@step
def check_data(raw: str, frame: str, as_of: str) -> dict[str, float]:
    """Check the raw data's age and the training frame; returns what was measured."""
    from .checks import check_frame, check_freshness

    settings = _at(Settings(), as_of)
    age = check_freshness(settings, Path(raw) / settings.data_manifest.name)
    return {**age, **check_frame(settings, _read(frame))}


@step
def train_candidate(frame: str, as_of: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Fit a candidate on the past of each fold; returns it with its metrics."""
    from .training import score, try_candidate

    chosen = _whole_numbers(parameters)
    folds = try_candidate(_at(Settings(), as_of), chosen, _read(frame))
    return {"parameters": chosen, "folds": folds, "score": score(folds)}


@step
def evaluate(frame: str, as_of: str, tried: list[dict[str, Any]], target: str) -> dict[str, float]:
    """Fit the best candidate, judge it on the hold-out, explain, export and track it."""
    from .training import train_best

    candidates = [{**one, "parameters": _whole_numbers(one["parameters"])} for one in tried]
    folder = Path(target)
    trained = train_best(_at(Settings(), as_of), candidates, _read(frame), folder)
    metadata = trained.bundle.metadata
    return {**metadata.metrics, "gain_over_baseline": metadata.gain_over_baseline.estimate}


@step
def compare(trained: str) -> dict[str, float]:
    """The gains of a trained model over the baseline and over production, on its hold-out.

    Each with the ends of its 95 % interval, as ``gain_over_production_low`` and ``_high``.
    """
    from .bundle import read_bundle
    from .evaluation import paired_gain
    from .holdout import ESTIMATOR, read_holdout
    from .registry import Registry, RegistryError
    from .served_models import PRODUCTION
    from .trained_model import BUNDLE_FOLDER, EVALUATION_FILE

    settings = Settings()
    bundle = read_bundle(Path(trained) / BUNDLE_FOLDER)
    gains = bundle.metadata.gain_over_baseline.figures(OVER_BASELINE)
    try:
        production = Registry(settings).bundle(PRODUCTION)
    except RegistryError:
        return gains
    if production.signature != bundle.signature:
        return gains
    holdout = read_holdout(Path(trained) / EVALUATION_FILE, bundle.signature)
    gain = paired_gain(
        bundle.signature,
        holdout.outcomes,
        holdout.scores[ESTIMATOR],
        production.scorer().scores(bundle.signature.blocks(holdout.features)),
        holdout.clusters,
        settings.bootstrap_resamples,
        settings.seed,
    )
    return gains | gain.figures(OVER_PRODUCTION)


def is_better(gains: dict[str, float]) -> bool:
    """Whether a trained model gains on everything that it was compared with."""
    return all(gains[name] > 0 for name in COMPARED if name in gains)


def describe_gains(gains: dict[str, float]) -> str:
    """The gains as a reader wants them, with their intervals."""
    from .bundle import Interval

    return ", ".join(
        f"{name.replace('_', ' ')} {Interval.from_figures(name, gains)}"
        for name in COMPARED
        if name in gains
    )


@step
def register(trained: str) -> str:
    """Register a trained model and store the gate's verdict; the same model stays one version."""
    from .bundle import read_bundle
    from .registry import Registry
    from .trained_model import BUNDLE_FOLDER

    registry = Registry(Settings())
    run = read_bundle(Path(trained) / BUNDLE_FOLDER).metadata.run
    known = [v for v in registry.versions() if run and v.tags.get("run_id") == run.id]
    version = known[0] if known else registry.register(Path(trained))
    registry.validate(version.number)
    return version.number


def _home(home: str, raw: str) -> Settings:
    """Settings of a new home with this raw data."""
    settings = Settings().model_copy(update={"home": Path(home)})
    shutil.copytree(raw, settings.data_dir, copy_function=_link_or_copy)
    return settings


def _at(settings: Settings, as_of: str) -> Settings:
    return settings.model_copy(update={"fixed_clock": datetime.fromisoformat(as_of)})


def _read(frame: str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(frame)


def _whole_numbers(parameters: dict[str, Any]) -> dict[str, Any]:
    """Undo that protobuf knows one kind of number: 100.0 is 100 where model.py says so."""
    from . import model

    return {
        name: int(value)
        if isinstance(value, float) and value.is_integer() and _is_whole(model, name)
        else value
        for name, value in parameters.items()
    }


def _is_whole(model: Any, name: str) -> bool:
    declared = [model.PARAMETERS.get(name), *getattr(model, "SEARCH_SPACE", {}).get(name, [])]
    return any(type(value) is int for value in declared)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)
