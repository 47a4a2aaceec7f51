"""Feature stores for tests: on this machine, and with real PostgreSQL and Redis."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from <<cookiecutter.package_name>> import data
from <<cookiecutter.package_name>>.feature_store import open_store
from <<cookiecutter.package_name>>.online_features import FEATURE_SERVICE
from <<cookiecutter.package_name>>.settings import Settings

from .services import Postgres, Service

NAMES = [feature.name for feature in data.FEATURES]


def home_beside(data_of: Settings, home: Path) -> Settings:
    """Settings of another home with the same data, and no store yet."""
    home.mkdir()
    (home / "data").symlink_to(data_of.data_dir)
    return Settings(home=home)


def own_repo(settings: Settings, folder: Path) -> Settings:
    """The same with a copy of the feature repo, for a test to change."""
    shutil.copytree(settings.feature_repo_dir, folder)
    return settings.model_copy(update={"feature_repo": folder})


def production_settings(
    settings: Settings, repo: Path, postgres: Postgres, redis: Service
) -> Settings:
    """The production variant; its warehouse, of which there is none here, is the embedded one."""
    settings = own_repo(settings, repo)
    path = repo / "feature_store.production.yaml"
    embedded, production = (
        yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in (repo / "feature_store.yaml", path)
    )
    production["offline_store"] = embedded["offline_store"]
    path.write_text(yaml.safe_dump(production), encoding="utf-8")
    changes = {"feature_store": "production", "feature_registry": postgres.database()}
    return settings.model_copy(update={**changes, "feature_redis": redis.address})


def online_rows(settings: Settings, keys: list[str]) -> list[dict[str, Any]]:
    """What the online store holds of each key."""
    store = open_store(settings)
    service = store.get_feature_service(FEATURE_SERVICE)
    found = store.get_online_features(service, [{data.KEY: key} for key in keys]).to_dict()
    return [{name: found[name][place] for name in NAMES} for place in range(len(keys))]
