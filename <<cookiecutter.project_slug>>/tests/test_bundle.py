from __future__ import annotations

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from <<cookiecutter.package_name>>.bundle import (
    CHECKSUM_FILE,
    CONTENT_FILES,
    Bundle,
    BundleError,
    Interval,
    NumberProfile,
    read_bundle,
    write_bundle,
)
from <<cookiecutter.package_name>>.trained_model import BUNDLE_FOLDER

from .bundles import CASES, Models, estimator_answers


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def bundle(models: Models) -> Bundle:
    return models.get("binary").bundle


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    write_bundle(tmp_path / "deep" / "bundle", bundle)
    return tmp_path / "deep" / "bundle"


def test_what_is_written_is_what_is_read(bundle: Bundle, folder: Path) -> None:
    assert read_bundle(folder) == bundle
    assert {path.name for path in folder.iterdir()} == {*CONTENT_FILES, CHECKSUM_FILE}
    assert list(folder.parent.iterdir()) == [folder]


def test_the_runtime_leaves_and_sends_nothing_of_its_use(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = (
        f"from pathlib import Path; from {read_bundle.__module__} import read_bundle; "
        f"read_bundle(Path({str(folder)!r})).scorer()"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": str(home),
    }
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    # With its telemetry, it makes the machine's identity and a store of what is to be sent.
    assert list(home.iterdir()) == []


def test_metrics_that_are_not_defined_survive(bundle: Bundle, tmp_path: Path) -> None:
    undefined = float("nan")
    metadata = bundle.metadata.model_copy(
        update={
            "metrics": {"roc_auc": undefined},
            "gain_over_baseline": Interval(estimate=0, low=float("-inf"), high=undefined),
        }
    )
    write_bundle(tmp_path / "bundle", bundle.model_copy(update={"metadata": metadata}))
    found = read_bundle(tmp_path / "bundle").metadata
    assert np.isnan(found.metrics["roc_auc"])
    assert found.gain_over_baseline.low == float("-inf")
    assert np.isnan(found.gain_over_baseline.high)


def test_a_bundle_is_never_written_over(bundle: Bundle, folder: Path) -> None:
    with pytest.raises(BundleError, match="is written once"):
        write_bundle(folder, bundle)
    assert read_bundle(folder) == bundle


def test_nothing_is_left_of_a_failed_write(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "profile.json":
            raise OSError("no space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        write_bundle(tmp_path / "models" / "bundle", bundle)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("name", [*CONTENT_FILES, CHECKSUM_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"no complete bundle.*{name}"):
        read_bundle(folder)


@pytest.mark.parametrize("name", [*CONTENT_FILES, CHECKSUM_FILE])
@pytest.mark.parametrize("change", ["one bit", "cut", "longer", "no text"])
def test_an_altered_file_is_named(folder: Path, name: str, change: str) -> None:
    content = (folder / name).read_bytes()
    altered = {
        "one bit": content[:-1] + bytes([content[-1] ^ 1]),
        "cut": content[:-1],
        "longer": content + b"\n",
        "no text": b"\xff\xfe",
    }[change]
    (folder / name).write_bytes(altered)
    with pytest.raises(BundleError, match=r"does not match its SHA256SUMS") as error:
        read_bundle(folder)
    assert "was altered" in str(error.value)
    if name != CHECKSUM_FILE:
        assert f"({name} was altered)" in str(error.value)


def test_content_of_another_version_is_refused(folder: Path) -> None:
    (folder / "metadata.json").write_text("{}")
    sums = {name: sha256((folder / name).read_bytes()).hexdigest() for name in CONTENT_FILES}
    lines = "".join(f"{checksum}  {name}\n" for name, checksum in sums.items())
    (folder / CHECKSUM_FILE).write_text(lines)
    with pytest.raises(BundleError, match="is not a bundle this version can read"):
        read_bundle(folder)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_reads_the_checksums(folder: Path) -> None:
    check = ["sha256sum", "--check", "--strict", "--quiet", CHECKSUM_FILE]
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode == 0
    (folder / "model.onnx").write_bytes(b"altered")
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("case", CASES)
def test_a_read_bundle_answers_as_the_estimator_did(case: str, models: Models) -> None:
    model = models.get(case)
    bundle = read_bundle(model.folder / BUNDLE_FOLDER)
    scorer = bundle.scorer()
    scores = scorer.scores(bundle.signature.blocks(model.rows))
    rows, classes = len(model.rows), bundle.signature.classes
    assert scores.shape == ((rows, len(classes)) if classes else (rows,))
    assert scores.dtype == np.float32
    expected = estimator_answers(model)
    for found, answer in zip(scorer.answers(scores), expected, strict=True):
        assert found == pytest.approx(answer, abs=1e-4)


@pytest.mark.parametrize(
    ("edges", "counts", "words"),
    [
        ((1.0, 1.0), (1, 1, 1), "must be finite and rise"),
        ((2.0, 1.0), (1, 1, 1), "must be finite and rise"),
        ((float("nan"),), (1, 1), "must be finite and rise"),
        ((float("inf"),), (1, 1), "must be finite and rise"),
        ((1.0,), (1,), "need one count more"),
    ],
)
def test_a_histogram_that_makes_no_sense_is_refused(edges: Any, counts: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        NumberProfile(edges=edges, counts=counts)
