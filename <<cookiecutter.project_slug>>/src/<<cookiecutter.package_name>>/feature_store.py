"""Feast: where its parts lie, what is registered, and what reaches the online store.

``feature_repo/`` holds the stores (``feature_store.yaml``, or the variant that ``ML_FEATURE_STORE``
names) and the definitions. Everything that speaks of now reads ``settings.as_of``.
"""

from __future__ import annotations

import importlib
import os
import re
import runpy
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timezone
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .console import counting
from .errors import ProjectError
from .settings import PACKAGE, Settings

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

TIMESTAMP = "event_timestamp"
VIEW = "features"
PUSH_SOURCE = "fresh_features"
DEFINITIONS_FILE = "definitions.py"
FILES = f"{PACKAGE}.offline_store.AsOfOfflineStore"  # reads the feature table of the home folder
VARIABLE = re.compile(r"\$\{(\w+)\}")
META = re.compile(r"(\n *)meta \{.*?\1\}", re.DOTALL)
KINDS = ("entities", "data_sources", "feature_views", "feature_services")


class FeatureStoreError(ProjectError):
    """The feature store is not set up; the message says what to do."""


@dataclass(frozen=True)
class Materialized:
    """What a materialization wrote: the newest values between two instants."""

    start: datetime
    end: datetime
    entities: int


def variables(settings: Settings) -> dict[str, str]:
    """What ``${...}`` in a store's file may name: the settings that are set, the environment."""
    own = {f"ML_{name.upper()}": str(value) for name, value in settings if value}
    own["ML_HOME"] = str(settings.home.resolve())
    own["ML_DUCKDB_THREADS"] = str(settings.duckdb_threads or os.cpu_count())
    return {**os.environ, **own}


def repo_config(settings: Settings) -> dict[str, Any]:
    """The content of the store's file, with every variable in place.

    Raises:
        FeatureStoreError: there is no such file, or a variable is not set.
    """
    path = repo_file(settings)
    if not path.is_file():
        raise FeatureStoreError(
            f"no {path}: ML_FEATURE_STORE={settings.feature_store!r} needs it (ML_FEATURE_REPO "
            "names the folder)"
        )
    text, known = path.read_text(encoding="utf-8"), variables(settings)
    if missing := sorted({name for name in VARIABLE.findall(text) if not known.get(name)}):
        raise FeatureStoreError(f"{path.name} needs {', '.join(missing)}: set them")
    content: dict[str, Any] = yaml.safe_load(VARIABLE.sub(lambda found: known[found[1]], text))
    return content


def import_feast() -> None:
    """Import Feast without what it changes in the whole process.

    It shows other libraries' deprecations and puts prometheus_client into another mode.
    """
    names = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")
    added = [name for name in names if name not in os.environ]
    with warnings.catch_warnings():
        for name in ("prometheus_client", "feast"):  # the first keeps the mode it is imported in
            importlib.import_module(name)
    for name in added:
        os.environ.pop(name, None)


def in_a_home_of_its_own(settings: Settings) -> Settings:
    """Settings whose registry lies in the home folder where the features do.

    A registry that others share would name the files of a home that is gone soon.
    """
    if repo_config(settings)["offline_store"]["type"] != FILES:
        return settings
    return settings.model_copy(update={"feature_store": ""})


def repo_file(settings: Settings) -> Path:
    """The file that names the stores."""
    variant = f".{settings.feature_store}" if settings.feature_store else ""
    return settings.feature_repo_dir / f"feature_store{variant}.yaml"


def open_store(settings: Settings, **registry: Any) -> FeatureStore:
    """Connect with the stores; ``registry`` replaces parts of its configuration."""
    import_feast()
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

    content = repo_config(settings)
    content["registry"].update(registry)
    settings.home.mkdir(parents=True, exist_ok=True)
    return FeatureStore(config=RepoConfig(**content, repo_path=settings.feature_repo_dir))


def apply(settings: Settings) -> list[str]:
    """Register the definitions, remove what they no longer hold, and make the online tables.

    Returns:
        What changed: one line for each definition.
    """
    import_feast()
    from feast import Entity, FeatureService, FeatureView
    from feast.data_source import DataSource

    store = open_store(settings)
    definitions = runpy.run_path(
        str(settings.feature_repo_dir / DEFINITIONS_FILE), init_globals={"settings": settings}
    )
    kinds = (Entity, DataSource, FeatureView, FeatureService)
    declared = {
        (type(value), value.name): value
        for value in definitions.values()
        if isinstance(value, kinds)
    }
    stale = []
    for item in (
        *store.list_feature_services(),
        *store.list_feature_views(),
        *store.list_data_sources(),
        *store.list_entities(),
    ):
        same = declared.get((type(item), item.name))
        if same is None:
            stale.append(item)
        elif isinstance(item, FeatureView):
            # Else Feast writes it again and forgets that it is materialized.
            same.state, same.materialization_intervals = item.state, item.materialization_intervals
    before = _registered(store)
    store.apply([*declared.values()], objects_to_delete=stale, partial=False)
    after = _registered(store)
    return [
        f"{'removed' if name not in after else 'changed' if name in before else 'new'}: {name}"
        for name in sorted({**before, **after})
        if before.get(name) != after.get(name)
    ]


def materialize(
    settings: Settings, start: datetime | None = None, incremental: bool = False
) -> Materialized:
    """Bring the newest values up to now into the online store.

    Without a start, those that are not older than their ttl; incremental: those since the last
    time. Feast's own incremental command would begin at the wall clock minus the ttl.

    Raises:
        FeatureStoreError: nothing is applied yet.
    """
    store = open_store(settings)
    view = feature_view(store)
    end = settings.as_of.replace(tzinfo=timezone.utc)
    begin = end - view.ttl if start is None else start.replace(tzinfo=timezone.utc)
    if incremental and view.most_recent_end_time is not None:
        begin = min(max(begin, view.most_recent_end_time), end)
        if begin == end:
            return Materialized(begin, end, 0)
    online = store.provider.online_store
    write = online.online_write_batch
    written = 0
    with counting("writing online features") as advance, redirect_stdout(StringIO()):

        def write_and_count(config: Any, table: Any, data: Any, progress: Any) -> None:
            nonlocal written
            write(config, table, data, progress)
            written += len(data)
            advance(len(data))

        online.online_write_batch = write_and_count
        store.materialize(begin, end, feature_views=[VIEW])
    return Materialized(begin, end, written)


def feature_view(store: FeatureStore) -> FeatureView:
    """The view of the model's features, as registered.

    Raises:
        FeatureStoreError: nothing is applied yet.
    """
    from feast.errors import FeatureViewNotFoundException

    try:
        return store.get_feature_view(VIEW)
    except FeatureViewNotFoundException as error:
        raise FeatureStoreError("no features are registered: run `features apply`") from error


def _registered(store: FeatureStore) -> dict[str, list[str]]:
    """Each definition's lines by its kind and name.

    Feast keeps fields in no certain order, and when a source was written beside what it is.
    """
    registry = store.registry.proto()
    specs = [
        (kind, getattr(item, "spec", item)) for kind in KINDS for item in getattr(registry, kind)
    ]
    return {
        f"{kind} {spec.name}": sorted(META.sub("", str(spec)).splitlines()) for kind, spec in specs
    }
