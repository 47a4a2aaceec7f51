from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import psutil
import pytest

from <<cookiecutter.package_name>> import kubeflow, lineage, pipeline, steps
from <<cookiecutter.package_name>>.database import connect, literal
from <<cookiecutter.package_name>>.pipeline import PipelineError, StepState, run
from <<cookiecutter.package_name>>.purchases import LOG_FILE, simulate
from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.settings import Settings

from .feature_stores import own_repo

UNTIL = date(2026, 1, 1)


@pytest.fixture
def home(settings: Settings) -> Settings:
    """A small log, and few candidates."""
    small = settings.model_copy(
        update={"search_budget": 2, "folds": 1, "model_parameters": {"max_iter": 20}}
    )
    simulate(small, 300, seed=7, until=UNTIL, replace=False)
    return small


class Watched:
    """The steps of the last run, by name."""

    states: list[StepState]

    def __call__(self, states: list[StepState]) -> None:
        self.states = states

    @property
    def counts(self) -> Counter[str]:
        return Counter(state.step for state in self.states)


def test_from_raw_data_to_a_validated_version_once(home: Settings) -> None:
    watched = Watched()
    version = run(home, watch=watched)
    assert version == "1"
    assert watched.counts == Counter([*kubeflow.STEPS, "train_candidate"])
    assert {state.state for state in watched.states} == {"done"}
    registry = Registry(home)
    assert registry.version("staging").number == version
    assert registry.version(version).validation in ("passed", "failed")
    assert registry.bundle(version).metadata.as_of == home.as_of
    assert not (home.data_dir / "features").exists()

    assert run(home, watch=watched) == version
    assert watched.counts == Counter(["compare", "register"])
    assert len(registry.versions()) == 1


def test_a_failing_check_stops_before_training_and_says_why(home: Settings) -> None:
    watched = Watched()
    strict = home.model_copy(update={"rarest_class": 0.49})
    with pytest.raises(PipelineError, match="check_data failed, nothing was registered: buys_wit"):
        run(strict, watch=watched)
    assert watched.counts == Counter(["prepare_data", "build_features", "check_data"])
    assert watched.states[-1].state == "failed"
    assert Registry(home).versions() == []


def test_sigterm_ends_the_run_with_its_steps(home: Settings) -> None:
    others = psutil.Process().children(recursive=True)  # servers of other tests
    steps_of_the_run: list[psutil.Process] = []

    def end(states: list[StepState]) -> None:
        if states and not steps_of_the_run:
            now = psutil.Process().children(recursive=True)
            steps_of_the_run.extend(set(now).difference(others))
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        run(home, watch=end)
    assert ended.value.code == 128 + signal.SIGTERM
    assert steps_of_the_run
    _, alive = psutil.wait_procs(steps_of_the_run, timeout=5)
    assert alive == []


def test_without_an_engine_containers_are_refused(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nothing.sock'}")
    with pytest.raises(PipelineError, match="no container engine answers"):
        run(home, containers=True)
    assert not home.pipeline_dir.exists()


def test_a_past_instant_gives_what_it_would_have_given_then(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = home.as_of - timedelta(days=90)
    cut = home.model_copy(update={"home": tmp_path / "cut"})
    shutil.copytree(home.data_dir, cut.data_dir)
    log = cut.data_dir / LOG_FILE
    with connect(cut) as db:
        db.execute(
            f"COPY (FROM {literal(home.data_dir / LOG_FILE)} WHERE purchased_at <= "
            f"{literal(then)}::TIMESTAMP) TO {literal(log)}"
        )
    frames = []
    for settings in (home, cut):
        monkeypatch.setenv("ML_HOME", str(settings.home))
        raw, frame = tmp_path / f"raw{len(frames)}", tmp_path / f"{len(frames)}.parquet"
        now = steps.prepare_data(then.isoformat(), str(raw))
        assert steps.build_features(str(raw), now, str(frame)) > 100
        frames.append(pd.read_parquet(frame))
    assert lineage.fingerprint(frames[0]) == lineage.fingerprint(frames[1])
    assert frames[0].equals(frames[1])


def test_features_of_a_run_do_not_get_into_a_registry_that_others_share(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = own_repo(home, tmp_path / "repo").feature_repo_dir
    text = (shared / "feature_store.yaml").read_text(encoding="utf-8")
    registry = tmp_path / "shared.db"
    (shared / "feature_store.shared.yaml").write_text(
        text.replace("${ML_HOME}/feature_registry.db", str(registry)), encoding="utf-8"
    )
    for name, value in (("HOME", home.home), ("FEATURE_REPO", shared), ("FEATURE_STORE", "shared")):
        monkeypatch.setenv(f"ML_{name}", str(value))
    raw, frame = tmp_path / "raw", tmp_path / "frame.parquet"
    now = steps.prepare_data("", str(raw))
    assert steps.build_features(str(raw), now, str(frame)) > 100
    assert not registry.exists()


def test_a_change_of_the_code_changes_its_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kubeflow.code_fingerprint()
    assert kubeflow.code_fingerprint() == before
    copy = tmp_path / "package"
    shutil.copytree(Path(kubeflow.__file__).parent, copy)
    monkeypatch.setattr(kubeflow, "__file__", str(copy / "kubeflow.py"))
    assert kubeflow.code_fingerprint() == before
    with (copy / "model.py").open("a", encoding="utf-8") as file:
        file.write("# another\n")
    assert kubeflow.code_fingerprint() != before


def test_changed_raw_data_is_another_listing(home: Settings) -> None:
    before = pipeline._raw_listing(home)
    (home.data_dir / "features").mkdir()
    (home.data_dir / "features" / "derived.parquet").touch()
    assert pipeline._raw_listing(home) == before
    simulate(home, 301, seed=7, until=UNTIL, replace=False)
    assert pipeline._raw_listing(home) != before


def test_a_raw_folder_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_RAW_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(Exception, match="nowhere is no folder"):
        steps.prepare_data("", str(tmp_path / "raw"))


def test_better_means_a_gain_on_everything() -> None:
    assert steps.is_better({"gain_over_baseline": 0.1})
    assert steps.is_better({"gain_over_baseline": 0.1, "gain_over_production": 0.01})
    assert not steps.is_better({"gain_over_baseline": 0.1, "gain_over_production": 0.0})
    assert not steps.is_better({"gain_over_baseline": -0.1})


def test_gains_are_said_with_their_intervals() -> None:
    gains = {
        "gain_over_baseline": 0.1,
        "gain_over_baseline_low": 0.05,
        "gain_over_baseline_high": 0.15,
    }
    assert steps.describe_gains(gains) == "gain over baseline +0.1000 [+0.0500, +0.1500]"
