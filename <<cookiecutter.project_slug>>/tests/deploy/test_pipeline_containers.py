"""The whole pipeline in containers of the jobs' image. Needs what test_image.py needs."""

from __future__ import annotations

import time
from collections import Counter
from datetime import date

import pytest

from <<cookiecutter.package_name>>.kubeflow import STEPS
from <<cookiecutter.package_name>>.pipeline import RUN_LABEL, PipelineError, StepState, run
from <<cookiecutter.package_name>>.purchases import simulate
from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.settings import Settings

from .test_image import build, docker, docker_is_ready

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("images")]


@pytest.fixture(scope="module")
def image() -> str:
    docker_is_ready()
    return build("jobs")


@pytest.fixture
def home(settings: Settings, image: str) -> Settings:
    small = settings.model_copy(
        update={
            "pipeline_image": image,
            "search_budget": 2,
            "folds": 1,
            "model_parameters": {"max_iter": 20},
        }
    )
    simulate(small, 300, seed=7, until=date(2026, 1, 1), replace=False)
    return small


def ended(since: float) -> list[str]:
    """Image and exit code of each container of a pipeline that ended, as the engine saw it."""
    fields = "{{.Actor.Attributes.image}} {{.Actor.Attributes.exitCode}}"
    window = ("--since", f"{since:.3f}", "--until", f"{time.time():.3f}", "--format", fields)
    filters = ("--filter", "event=die", "--filter", f"label={RUN_LABEL}")
    return docker("events", *window, *filters).stdout.splitlines()


def test_every_step_runs_in_a_container_and_a_version_is_registered(home: Settings) -> None:
    states: list[StepState] = []
    began = time.time()
    version = run(home, watch=lambda now: states.__setitem__(slice(None), now), containers=True)
    assert Counter(s.step for s in states) == Counter([*STEPS, "train_candidate"])
    assert {state.state for state in states} == {"done"}
    assert ended(began) == [f"{home.pipeline_image} 0"] * (len(STEPS) + 1)
    registry = Registry(home)
    assert registry.version("staging").number == version == "1"
    assert registry.bundle(version).metadata.as_of == home.as_of

    began = time.time()
    assert run(home, containers=True) == version
    assert len(ended(began)) == len(("compare", "register"))


def test_a_step_that_fails_in_its_container_is_named_with_its_reason(home: Settings) -> None:
    began = time.time()
    strict = home.model_copy(update={"rarest_class": 0.49})
    with pytest.raises(PipelineError, match="check_data failed, nothing was registered: buys_wit"):
        run(strict, containers=True)
    assert [line.split()[1] for line in ended(began)] == ["0", "0", "1"]
    assert Registry(home).versions() == []


def test_a_run_that_is_broken_off_leaves_no_container(home: Settings) -> None:
    def interrupt(states: list[StepState]) -> None:
        if any(state.step == "build_features" for state in states):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(home, watch=interrupt, containers=True)
    assert docker("ps", "--all", "--quiet", "--filter", f"label={RUN_LABEL}").stdout == ""


def test_an_image_that_is_not_there_is_named(home: Settings) -> None:
    other = home.model_copy(update={"pipeline_image": "nobody/nothing:1"})
    with pytest.raises(PipelineError, match="ML_PIPELINE_IMAGE=nobody/nothing:1 cannot be used"):
        run(other, containers=True)
    assert not home.pipeline_dir.exists()
