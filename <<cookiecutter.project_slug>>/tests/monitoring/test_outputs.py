from __future__ import annotations

import json
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pandas as pd
import pytest

from <<cookiecutter.package_name>>.monitoring import outputs
from <<cookiecutter.package_name>>.monitoring.drift import DriftReport, compare
from <<cookiecutter.package_name>>.settings import Settings

from ..services import Service, free_port, require_program, running
from .conftest import Drifting


@pytest.fixture
def compared(
    settings: Settings, drifting: Drifting, tmp_path: Path
) -> tuple[DriftReport, pd.DataFrame]:
    rows = drifting.draw(1_000, seed=4)
    rows["amount"] *= 3
    rows.to_parquet(tmp_path / "current.parquet")
    report, sample = compare(settings, drifting.reference, str(tmp_path / "current.parquet"))
    assert sample is not None
    return report, sample


def test_a_report_is_complete(
    settings: Settings, drifting: Drifting, compared: tuple[DriftReport, pd.DataFrame]
) -> None:
    report, sample = compared
    sample.loc[::3, "city"] = None
    pages = {"reference": drifting.rows, "current": sample.assign(visits=None)}
    folder = outputs.write_report(settings, report, pages)
    again = outputs.write_report(settings, report)
    assert again.name == f"{folder.name}-2"
    assert DriftReport.model_validate_json((folder / "drift.json").read_text()) == report
    table = pd.read_csv(folder / "columns.csv").set_index("name")
    assert table["status"]["amount"] == "drifted"
    page = (folder / "evidently.html").read_text(encoding="utf-8")
    for name in ("amount", "city", "prediction"):
        assert name in page
    assert not list(settings.drift_dir.glob(".*"))


def test_a_failed_report_leaves_nothing(
    settings: Settings, compared: tuple[DriftReport, pd.DataFrame]
) -> None:
    with pytest.raises(KeyError):
        outputs.write_report(
            settings,
            compared[0],
            {"reference": pd.DataFrame({"a": [1]}), "current": pd.DataFrame({"b": [1]})[["c"]]},
        )
    assert not settings.drift_dir.exists() or not list(settings.drift_dir.iterdir())


def test_metrics_go_to_a_textfile(
    settings: Settings, tmp_path: Path, compared: tuple[DriftReport, pd.DataFrame]
) -> None:
    path = tmp_path / "metrics" / "drift.prom"
    outputs.publish_metrics(settings.model_copy(update={"drift_textfile": path}), compared[0])
    lines = path.read_text(encoding="utf-8").splitlines()
    assert 'drift_column_detected{column="amount"} 1.0' in lines
    assert 'drift_column_detected{column="city"} 0.0' in lines
    assert "drift_rows 1000.0" in lines
    assert 'drift_info{model_version="1"} 1.0' in lines


def test_metrics_go_to_a_pushgateway(
    settings: Settings, tmp_path: Path, compared: tuple[DriftReport, pd.DataFrame]
) -> None:
    port = free_port()
    command = [
        require_program("prometheus-pushgateway"), f"--web.listen-address=127.0.0.1:{port}"
    ]  # fmt: skip
    wired = settings.model_copy(update={"drift_pushgateway": f"127.0.0.1:{port}"})
    with pytest.raises(outputs.OutputError, match="ML_DRIFT_PUSHGATEWAY"):
        outputs.publish_metrics(wired, compared[0])
    with running(Service(command, port, tmp_path / "log")) as gateway:
        outputs.publish_metrics(wired, compared[0])
        opener = build_opener(ProxyHandler({}))
        with opener.open(f"http://{gateway.address}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    labels = f'instance="",job="drift",model_name="{settings.model_name}"'
    assert f"drift_rows{{{labels}}} 1000" in text


def test_a_run_is_tracked(settings: Settings, compared: tuple[DriftReport, pd.DataFrame]) -> None:
    folder = outputs.write_report(settings, compared[0])
    outputs.track_report(settings, compared[0], folder)
    assert json.loads((folder / "drift.json").read_text())["status"] == compared[0].status
