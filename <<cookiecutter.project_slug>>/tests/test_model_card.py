from __future__ import annotations

import re
from pathlib import Path

import pytest

from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.trained_model import REPORTS_FOLDER

from .homes import TrainedHome
from .trained import write_trained_model


def test_the_card_says_what_is_known_of_a_version(
    registry: Registry, good: Path, trained_home: TrainedHome, tmp_path: Path
) -> None:
    registry.register(good)
    verdict = registry.validate()
    card, page = registry.write_card("staging", tmp_path / "card")
    text = card.read_text(encoding="utf-8")
    metadata = trained_home.model.bundle.metadata
    for said in (
        metadata.data_fingerprint,
        str(metadata.gain_over_baseline),
        f"{verdict.measured['hold-out'].metrics['roc_auc'].low:.4f} to ",
        verdict.measured["hold-out"].segments[0].feature,
        f"Trained on {metadata.training_rows:,} rows. Judged on {verdict.rows:,} rows",
        *(feature.name for feature in metadata.signature.features),
        *(check.figure for check in verdict.checks if "|" not in check.figure),
    ):
        assert said in text
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert {"calibration.png", "feature_importance.png"} <= set(pictures)
    for name in pictures:
        assert (card.parent / name).read_bytes() == (good / REPORTS_FOLDER / name).read_bytes()
    html = page.read_text(encoding="utf-8")
    assert html.count('src="data:image/png;base64,') == len(pictures)
    assert html.count("<table>") == len(re.findall(r"^\| ---", text, flags=re.MULTILINE))


def test_a_version_that_was_not_judged_has_a_card(registry: Registry, noise: Path) -> None:
    registry.register(noise)
    card, _ = registry.write_card("1", noise.parent / "card of noise")
    text = card.read_text(encoding="utf-8")
    assert "Not judged yet." in text
    assert "## Pictures" not in text
    assert "nothing is known of its segments" in text


@pytest.mark.parametrize("case", ["multiclass", "regression", "one text"])
def test_every_task_has_a_card(registry: Registry, case: str, tmp_path: Path) -> None:
    trained = write_trained_model(tmp_path / "model", case, parameters={"note": "<b> | `x`"})
    registry.register(trained.folder)
    registry.validate()
    card, page = registry.write_card("1", tmp_path / "card")
    assert ("confidence is a frequency" in card.read_text()) == (case != "regression")
    assert "<b>" not in page.read_text()
