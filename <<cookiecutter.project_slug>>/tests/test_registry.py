from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from <<cookiecutter.package_name>> import data
from <<cookiecutter.package_name>>.bundle import BundleError, read_bundle
from <<cookiecutter.package_name>>.experiment import ExperimentError, validated, write_experiment
from <<cookiecutter.package_name>>.mlflow_client import mlflow
from <<cookiecutter.package_name>>.promotions import PromotionError, PromotionRecord
from <<cookiecutter.package_name>>.registry import Registry, RegistryError
from <<cookiecutter.package_name>>.schema import Feature
from <<cookiecutter.package_name>>.served_models import read_aliases, served_bundle

from .homes import TrainedHome
from .trained import write_trained_model


def in_production(registry: Registry, folder: Path) -> str:
    number = registry.register(folder).number
    assert registry.validate(number).passed
    return registry.promote(number).number


def test_a_registered_version_is_staging_and_knows_its_origin(
    registry: Registry, good: Path, trained_home: TrainedHome
) -> None:
    first = registry.register(good)
    second = registry.register(good)
    assert [version.number for version in registry.versions()] == ["2", "1"]
    assert registry.version("staging") == second
    assert registry.version(first.number).aliases == ()
    metadata = trained_home.model.bundle.metadata
    assert metadata.run is not None
    assert second.tags["run_id"] == metadata.run.id
    assert second.tags["run_tracker"] == metadata.run.tracker
    assert second.tags["data_fingerprint"] == metadata.data_fingerprint
    assert second.validation == "not validated"


def test_the_newest_trained_model_is_registered_by_default(
    trained_home: TrainedHome, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(trained_home.settings.home, home)
    registry = Registry(trained_home.settings.model_copy(update={"home": home}))
    registry.register()
    assert registry.bundle("staging") == trained_home.model.bundle


def test_nothing_to_register_says_what_to_run(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="run `train` first"):
        registry.register()


def test_an_altered_bundle_is_not_registered(registry: Registry, good: Path) -> None:
    with (good / "bundle" / "model.onnx").open("ab") as file:
        file.write(b"!")
    with pytest.raises(BundleError, match=r"model\.onnx was altered"):
        registry.register(good)
    assert registry.versions() == []


def test_an_unknown_version_names_those_there_are(registry: Registry, good: Path) -> None:
    with pytest.raises(RegistryError, match=r"no version or alias '7'; it has none yet: run"):
        registry.version("7")
    registry.register(good)
    with pytest.raises(RegistryError, match=r"alias 'prod'; versions: 1; aliases: staging"):
        registry.version("prod")


def test_the_gate_passes_a_good_model_and_stores_the_verdict(
    registry: Registry, good: Path
) -> None:
    registry.register(good)
    verdict = registry.validate()
    assert verdict.passed
    assert [check.name for check in verdict.checks] == [
        "schema", "ONNX agreement", "size", "latency of a row, p99", "latency of 1,000 rows",
        "against the baseline", "calibration", "segments", "not judged",
    ]  # fmt: skip
    assert "no feature table here" in verdict.checks[-1].figure
    stored = registry.version("staging")
    assert stored.validation == "passed"
    assert len(stored.tags["verdict"]) < 1_000
    assert registry.verdict("staging") == verdict
    again = registry.validate()
    assert registry.verdict("staging") == again != verdict


def test_the_gate_fails_a_model_that_learned_noise(
    registry: Registry, good: Path, noise: Path
) -> None:
    production = in_production(registry, good)
    candidate = registry.register(noise).number
    verdict = registry.validate(candidate)
    assert {"against the baseline", f"against production (version {production})"} <= set(
        verdict.failed
    )
    assert registry.version(candidate).tags["verdict"].count("against the baseline") == 1
    with pytest.raises(
        PromotionError, match=rf"version {candidate} has not passed the gate \(failed\)"
    ):
        registry.promote(candidate)
    assert registry.version("production").number == production


def test_the_gate_fails_an_export_that_was_swapped(
    registry: Registry, good: Path, noise: Path
) -> None:
    shutil.rmtree(good / "bundle")
    shutil.copytree(noise / "bundle", good / "bundle")
    registry.register(good)
    assert "ONNX agreement" in registry.validate().failed


def test_the_gate_fails_a_model_of_other_features(
    registry: Registry, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(good)
    monkeypatch.setattr(data, "FEATURES", (*data.FEATURES, Feature(name="new_one")))
    assert registry.validate().failed == ["schema"]


def test_only_a_version_that_passed_is_promoted(registry: Registry, good: Path) -> None:
    registry.register(good)
    with pytest.raises(
        PromotionError, match=r"not passed the gate \(not validated\): `registry validate 1`"
    ):
        registry.promote()
    registry.validate()
    assert registry.promote(reason="first").aliases == ("production", "staging")
    with pytest.raises(PromotionError, match="in production already"):
        registry.promote()
    (move,) = registry.history()
    assert (move.action, move.to_version, move.reason, move.state) == (
        "promote", "1", "first", "done",
    )  # fmt: skip


def test_force_goes_past_the_gate_and_is_recorded(registry: Registry, good: Path) -> None:
    registry.register(good)
    with pytest.raises(PromotionError, match="say why with --reason"):
        registry.promote(force=True, reason=" ")
    registry.promote(force=True, reason="the gate's machine is down")
    (move,) = registry.history()
    assert (move.action, move.reason) == ("force", "the gate's machine is down")
    in_production(registry, good)
    assert registry.rollback().number == "1"


def test_a_verdict_of_another_version_does_not_count(registry: Registry, good: Path) -> None:
    first, second = registry.register(good).number, registry.register(good).number
    registry.validate(first)
    client = mlflow.MlflowClient()
    for tag, value in registry.version(first).tags.items():
        client.set_model_version_tag(registry._name, second, tag, value)
    with pytest.raises(PromotionError, match=f"version {second} has not passed the gate"):
        registry.promote(second)


def test_a_verdict_whose_last_word_was_lost_does_not_count(
    registry: Registry, good: Path, noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_production(registry, good)
    second = registry.register(noise).number
    set_tag = registry._client.set_model_version_tag
    set_tag(registry._name, second, "validation", "passed")  # by an earlier verdict

    def lose_the_last(name: str, version: str, tag: str, value: str) -> None:
        if tag == "validation":
            raise ConnectionError
        set_tag(name, version, tag, value)

    with monkeypatch.context() as patch:
        patch.setattr(registry._client, "set_model_version_tag", lose_the_last)
        with pytest.raises(ConnectionError):
            registry.validate(second)
    assert registry.version(second).validation == "passed"
    with pytest.raises(PromotionError, match=f"version {second} has not passed the gate"):
        registry.promote(second)


def test_an_altered_verdict_is_refused(registry: Registry, good: Path) -> None:
    registry.register(good)
    with pytest.raises(RegistryError, match="was not judged"):
        registry.verdict("1")
    registry.validate()
    (path,) = registry._settings.artifacts_dir.rglob("verdicts/**/*.json")
    path.write_text(path.read_text().replace("true", "false"))
    with pytest.raises(RegistryError, match="verdict of version 1 was altered"):
        registry.verdict("1")


def test_a_late_request_of_a_killed_command_is_put_right(registry: Registry, good: Path) -> None:
    first, second = in_production(registry, good), registry.register(good).number
    PromotionRecord(registry._settings).intend("force", first, second, "killed")
    third = registry.register(good).number
    registry.validate(third)
    registry.promote(third)
    mlflow.MlflowClient().set_registered_model_alias(registry._name, "production", second)
    assert registry.rollback().number == first
    assert [move.state for move in registry.history()] == ["done", "undone", "done", "done"]


def test_a_verdict_against_an_older_production_does_not_count(
    registry: Registry, good: Path
) -> None:
    first, second = registry.register(good).number, registry.register(good).number
    registry.validate(first)
    registry.validate(second)
    registry.promote(first)
    with pytest.raises(PromotionError, match="judged against production none, which is 1 by now"):
        registry.promote(second)
    registry.validate(second)
    assert registry.promote(second).number == second


def test_rolling_back_twice_goes_back_two(registry: Registry, good: Path) -> None:
    versions = [in_production(registry, good) for _ in range(3)]
    assert registry.rollback("slow").number == versions[1]
    assert registry.rollback("slower").number == versions[0]
    with pytest.raises(PromotionError, match="no earlier production version"):
        registry.rollback()
    assert registry.version("production").number == versions[0]


def test_production_moved_by_other_means_is_not_rolled_back(registry: Registry, good: Path) -> None:
    in_production(registry, good)
    in_production(registry, good)
    third = registry.register(good).number
    mlflow.MlflowClient().set_registered_model_alias(registry._name, "production", third)
    with pytest.raises(PromotionError, match=f"production is version {third}.*record says 2"):
        registry.rollback()


@pytest.mark.parametrize("moved", [True, False])
def test_an_interrupted_move_is_settled_by_the_next_command(
    registry: Registry, good: Path, moved: bool
) -> None:
    first = in_production(registry, good)
    second = registry.register(good).number
    registry.validate(second)
    PromotionRecord(registry._settings).intend("promote", first, second, "killed in between")
    if moved:
        mlflow.MlflowClient().set_registered_model_alias(registry._name, "production", second)
        assert registry.rollback().number == first
    else:
        assert registry.promote(second).number == second
    states = [move.state for move in registry.history()]
    assert states == ["done", "done" if moved else "undone", "done"]


def test_pyfunc_loads_the_production_model(
    registry: Registry, good: Path, trained_home: TrainedHome
) -> None:
    in_production(registry, good)
    bundle = trained_home.model.bundle
    rows = pd.read_parquet(good / "evaluation.parquet").head(50)
    typed = rows[list(bundle.signature.names)].astype(
        {f.name: "int64" if f.type == "int" else "float64" for f in bundle.signature.features}
    )
    answers = mlflow.pyfunc.load_model(f"models:/{registry._name}@production").predict(typed)
    scores = bundle.scorer().scores(bundle.signature.blocks(rows))
    np.testing.assert_array_equal(answers["prediction"], scores.argmax(axis=1))
    np.testing.assert_allclose(answers["confidence"], scores.max(axis=1), atol=1e-6)


def test_a_version_is_downloaded_into_a_new_folder(
    registry: Registry, good: Path, tmp_path: Path, trained_home: TrainedHome
) -> None:
    registry.register(good)
    registry.download("staging", tmp_path / "new" / "bundle")
    assert read_bundle(tmp_path / "new" / "bundle") == trained_home.model.bundle
    with pytest.raises(RegistryError, match="exists"):
        registry.download("staging", tmp_path / "new" / "bundle")


def test_sync_brings_what_the_aliases_name(registry: Registry, good: Path, noise: Path) -> None:
    served = registry._settings.served_dir
    assert registry.sync() == {}
    assert read_aliases(served) == {}
    production = in_production(registry, good)
    staging = registry.register(noise).number
    assert registry.sync() == {"production": production, "staging": staging}
    assert read_aliases(served) == {"production": production, "staging": staging}
    assert served_bundle(served, production) == registry.bundle("production")
    assert served_bundle(served, staging) == registry.bundle("staging")


def test_sync_brings_what_the_experiment_names(registry: Registry, good: Path) -> None:
    settings = registry._settings
    earlier, production, staging = (registry.register(good).number for _ in range(3))
    assert registry.validate(production).passed
    registry.promote(production)
    arms = [
        {"name": "control", "model": "production", "weight": "0.5"},
        {"name": "treatment", "model": earlier, "weight": "0.5"},
    ]
    write_experiment(settings.experiment_path, validated({"name": "x", "variants": arms}))
    assert registry.sync() == {"production": production, "staging": staging}
    assert served_bundle(settings.served_dir, earlier) == registry.bundle(earlier)


def test_a_mistake_in_the_experiment_does_not_hold_production_up(
    registry: Registry, good: Path
) -> None:
    settings = registry._settings
    production = in_production(registry, good)
    arms = [{"name": "control", "model": "production", "weight": "1"}]
    shadowed = {"name": "x", "variants": arms, "shadow": {"model": "77"}}
    write_experiment(settings.experiment_path, validated(shadowed))
    with pytest.raises(RegistryError, match="no version or alias '77'"):
        registry.sync()
    assert read_aliases(settings.served_dir)["production"] == production
    settings.experiment_path.write_text("{")
    with pytest.raises(ExperimentError, match="is not valid"):
        registry.sync()


def test_sync_mends_an_altered_bundle(registry: Registry, good: Path) -> None:
    number = in_production(registry, good)
    registry.sync()
    folder = registry._settings.served_dir / "versions" / number
    (folder / "model.onnx").write_bytes(b"not a model")
    registry.sync()
    assert read_bundle(folder) == registry.bundle("production")


def test_a_bundle_of_the_same_number_takes_the_others_place(
    registry: Registry, good: Path, noise: Path
) -> None:
    number = in_production(registry, good)
    registry.sync()
    settings = registry._settings.model_copy(update={"model_name": "another-model"})
    another = Registry(settings)
    assert another.register(noise).number == number
    another.sync()
    assert served_bundle(settings.served_dir, number) == another.bundle(number)


def test_another_signature_is_accepted_on_demand_alone(
    registry: Registry, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    production = in_production(registry, good)
    other = write_trained_model(good.parent / "other", "binary")
    monkeypatch.setattr(data, "FEATURES", other.bundle.signature.features)
    monkeypatch.setattr(data, "LABEL", other.bundle.signature.label)
    registry.register(other.folder)
    assert registry.validate().failed == [f"against production (version {production})"]
    assert registry.validate(new_signature=True).passed
    assert registry.promote().number != production
