from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from <<cookiecutter.package_name>> import cli, data
from <<cookiecutter.package_name>>.prediction_log import SegmentWriter
from <<cookiecutter.package_name>>.served_models import read_aliases
from <<cookiecutter.package_name>>.settings import PACKAGE, Settings

from .bundles import publish
from .logs import BINARY, logged_rows
from .trained import sample_rows, write_trained_model

LOG = "customer,date,amount\n1,1997-01-01,10\n1,1997-06-01,20\n2,1997-02-30,5\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ML_HOME", str(tmp_path))
    monkeypatch.setenv("ML_BOOTSTRAP_RESAMPLES", "40")
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.app, words, catch_exceptions=False)


def run_main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of the console script, which turns errors into lines."""
    monkeypatch.setattr("sys.argv", [PACKAGE, *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_from_data_to_the_served_folder(home: Path) -> None:
    assert "300 customers" in run("data", "simulate", "--customers", "300").output
    assert "gain in roc_auc over the baseline" in run("train", "--param", "max_iter=60").output
    assert "registered version 1" in run("registry", "register").output
    verdict = run("registry", "validate")
    assert verdict.exit_code == 0, verdict.output
    assert "version 1 is in production" in run("registry", "promote", "--reason", "first").output
    assert "production: version 1" in run("registry", "sync").output
    assert read_aliases(Settings().served_dir)["production"] == "1"
    assert "production, staging" in run("registry", "list").output
    assert "first" in run("registry", "history").output
    assert run("registry", "download", str(home / "copy")).exit_code == 0
    assert json.loads((home / "copy" / "metadata.json").read_text())["parameters"]["max_iter"] == 60


@pytest.mark.usefixtures("home")
def test_a_gate_that_fails_has_an_exit_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    run("data", "simulate", "--customers", "300")
    run("train", "--param", "max_iter=1")
    run("registry", "register")
    monkeypatch.setattr(data, "FEATURES", data.FEATURES[:-1])
    failed = run("registry", "validate")
    assert failed.exit_code == 2
    assert "version 1 failed the gate" in failed.output


@pytest.mark.usefixtures("home")
def test_an_import_reports_what_it_set_aside(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG, encoding="utf-8")
    columns = ("--customer-column", "customer", "--date-column", "date")
    result = run("data", "import", str(tmp_path / "log.csv"), *columns)
    assert result.exit_code == 0
    assert "2 purchases of 1 customers" in result.output
    assert "set aside: 1 unreadable date; see" in result.output


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train",), "no purchases in"),
        (("registry", "register"), "no trained model"),
        (("registry", "validate", "9"), "no version or alias '9'"),
        (("registry", "rollback"), "no earlier production version"),
        (("data", "import", "nothing.csv"), "nothing.csv is no file"),
    ],
)
def test_an_error_is_a_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    assert run_main(monkeypatch, *words) == 1
    printed = capfd.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


def test_a_bad_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_PORT", "70000")
    assert run_main(monkeypatch, "registry", "list") == 1
    assert "the setting ML_PORT='70000' is not valid" in capfd.readouterr().err


def test_a_malformed_parameter_is_refused() -> None:
    result = run("train", "--param", "max_iter")
    assert result.exit_code == 2
    assert "must look like name=value" in result.output


def test_a_setting_that_is_no_json_is_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_MODEL_PARAMETERS", "nonsense")
    assert run_main(monkeypatch, "registry", "list") == 1
    assert "model_parameters" in capfd.readouterr().err


@pytest.mark.usefixtures("home")
def test_a_parameter_that_the_estimator_refuses_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run("data", "simulate", "--customers", "300")
    assert run_main(monkeypatch, "train", "--param", "learning_rate=-1") == 1
    printed = capfd.readouterr().err
    assert "refuses to fit" in printed
    assert "learning_rate" in printed
    assert "Traceback" not in printed


@pytest.mark.usefixtures("home")
def test_no_version_yet_says_what_to_run() -> None:
    assert "has no version yet" in run("registry", "list").output


def test_the_log_is_compacted_and_a_user_forgotten(home: Path) -> None:
    writer = SegmentWriter(Settings().prediction_log_dir)
    writer.describe("1", BINARY)
    writer.append(logged_rows(["a", "b", "c"], user_ids=["ada", "bob", None]))
    writer.close()
    assert "3 rows and 0 outcomes of 1 segments" in run("log", "compact").output
    assert "0 rows and 0 outcomes of 0 segments" in run("log", "compact", "--now").output
    assert "removed 1 rows and 0 outcomes" in run("log", "forget", "ada").output
    assert "removed 0 rows" in run("log", "forget", "ada").output
    assert list(home.rglob("days/*/*.parquet"))


def test_a_file_is_scored_or_the_reason_is_a_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source, target = home / "in.parquet", home / "out.parquet"
    sample_rows(BINARY, 20).to_parquet(source)
    assert run_main(monkeypatch, "predict", str(source), str(target)) == 1
    publish(Settings(), "1", write_trained_model(home / "trained", "binary"))
    assert "20 rows scored by version 1" in run("predict", str(source), str(target)).output
    assert len(pd.read_parquet(target)["prediction"]) == 20
    target.unlink()
    source.write_text("amount,visits")
    assert run_main(monkeypatch, "predict", str(source), str(target)) == 1
    printed = capfd.readouterr().err
    assert "cannot be read as Parquet" in printed
    assert "Traceback" not in printed
    assert not target.exists()


@pytest.mark.parametrize("words", [("log", "compact"), ("log", "forget"), ("predict",)])
def test_help_shows_an_example(words: tuple[str, ...]) -> None:
    assert f"Example: {' '.join(words)}" in run(*words, "--help").output
    assert run(*words, "--no-such-option").exit_code == 2
