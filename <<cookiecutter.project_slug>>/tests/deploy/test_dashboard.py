"""The dashboard asks for metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import <<cookiecutter.package_name>> as package

PROJECT = Path(__file__).parents[2]
DASHBOARD = PROJECT / "deploy" / "grafana" / "dashboards" / "model.json"
METRIC = re.compile(r"\b((?:model|drift|prediction_log)_[a-z_]+)\b")
LABELS = {"model_version", "model_name"}


def test_every_query_is_of_metrics_that_the_code_names() -> None:
    source = "".join(
        path.read_text(encoding="utf-8") for path in Path(package.__file__).parent.rglob("*.py")
    )
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for query in queries for name in METRIC.findall(query)} - LABELS
    assert len(named) > 10
    for name in named:
        base = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert base in source or base.removeprefix("drift_") in source, name
