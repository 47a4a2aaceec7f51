from __future__ import annotations

from pathlib import Path
from timeit import repeat

import pytest

from <<cookiecutter.package_name>>.experiment import Experiment, ExperimentError, validated
from <<cookiecutter.package_name>>.serving.router import (
    Route,
    Router,
    UnknownVariantError,
    variant_versions,
)

from ..test_experiment import USERS, described


@pytest.fixture
def experiment() -> Experiment:
    return validated(described("0.7", "0.2", "0.1", shadow={"model": "staging"}))


def test_users_are_routed_as_the_experiment_assigns_them(experiment: Experiment) -> None:
    router = Router(experiment)
    for user in USERS[:1_000]:
        route = router.route(user)
        assert (
            experiment.variants[route.index].name == route.variant == experiment.assign(user).name
        )
        assert route.experiment == "deeper-trees"


@pytest.mark.parametrize("nobody", [None, ""])
def test_who_has_no_id_gets_the_control_outside_the_experiment(
    experiment: Experiment, nobody: str | None
) -> None:
    assert Router(experiment).route(nobody) == Route(0, "control", "")


def test_a_forced_variant_is_outside_the_experiment(experiment: Experiment) -> None:
    router = Router(experiment)
    for user in (None, "user-1", "user-2"):
        assert router.route(user, "third") == Route(2, "third", "")
    with pytest.raises(UnknownVariantError, match="no variant 'x': there are control, treatment"):
        router.route("user-1", "x")


def test_without_an_experiment_everybody_gets_the_control() -> None:
    assert Router(None).route("user-1") == Router(None).route(None) == Route(0, "control", "")


def test_a_shadow_beside_the_control_alone_leaves_everybody_out_of_the_split() -> None:
    router = Router(validated(described("1", shadow={"model": "7"})))
    assert router.route("user-1") == Route(0, "control", "")


def test_a_route_takes_microseconds(experiment: Experiment) -> None:
    router = Router(experiment)
    fastest = min(repeat(lambda: router.route("customer-123456"), number=5_000, repeat=20)) / 5_000
    assert fastest < 10e-6


def test_references_become_served_versions(experiment: Experiment, tmp_path: Path) -> None:
    for version in "1234":
        (tmp_path / "versions" / version).mkdir(parents=True)
    aliases = {"production": "4", "staging": "4"}
    assert variant_versions(None, tmp_path, aliases) == (["4"], None)
    assert variant_versions(experiment, tmp_path, aliases) == (["1", "2", "3"], "4")


@pytest.mark.parametrize("model", ["5", "stagin", ".hidden"])
def test_an_unknown_reference_is_refused(tmp_path: Path, model: str) -> None:
    (tmp_path / "versions" / "1").mkdir(parents=True)
    experiment = validated(described("1", shadow={"model": "5"}))
    arms = tuple(arm.model_copy(update={"model": model}) for arm in experiment.variants)
    unknown = experiment.model_copy(update={"variants": arms, "shadow": None})
    with pytest.raises(ExperimentError, match=r"neither a served alias \(staging\) nor a version"):
        variant_versions(unknown, tmp_path, {"staging": "1"})
