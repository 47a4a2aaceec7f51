from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from <<cookiecutter.package_name>>.bundle import BundleError, read_bundle
from <<cookiecutter.package_name>>.served_models import (
    add_version,
    read_aliases,
    served_bundle,
    version_folder,
    write_aliases,
)
from <<cookiecutter.package_name>>.trained_model import BUNDLE_FOLDER

from .bundles import Models


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Models(tmp_path_factory.mktemp("models")).get("binary").folder / BUNDLE_FOLDER


def test_aliases_are_empty_before_the_first_sync(tmp_path: Path) -> None:
    assert read_aliases(tmp_path / "nothing") == {}


def test_aliases_are_replaced_as_a_whole(tmp_path: Path) -> None:
    served = tmp_path / "served"
    write_aliases(served, {"production": "1", "staging": "2"})
    write_aliases(served, {"production": "2"})
    assert read_aliases(served) == {"production": "2"}
    assert [path.name for path in served.iterdir()] == ["aliases.json"]
    assert (served / "aliases.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("text", ["", "{", "[]", '{"production": 3}', "null", "\ud800"])
def test_aliases_that_make_no_sense_are_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "aliases.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BundleError, match="run `registry sync` again"):
        read_aliases(tmp_path)


def test_a_reader_never_sees_half_of_the_aliases(tmp_path: Path) -> None:
    write_aliases(tmp_path, {"production": "0"})
    done = threading.Event()
    seen: list[dict[str, str]] = []

    def read() -> None:
        while not done.is_set():
            seen.append(read_aliases(tmp_path))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        write_aliases(tmp_path, {"production": str(number), "previous": "x" * 10_000})
    done.set()
    reader.join()
    assert seen
    assert all(aliases.keys() >= {"production"} for aliases in seen)


def test_a_version_is_added_once(tmp_path: Path, source: Path) -> None:
    assert add_version(tmp_path, "1", source) is True
    assert add_version(tmp_path, "1", source) is False
    assert served_bundle(tmp_path, "1") == read_bundle(source)
    assert [path.name for path in (tmp_path / "versions").iterdir()] == ["1"]


def test_a_version_is_readable_for_a_server_of_another_user(tmp_path: Path, source: Path) -> None:
    private = tmp_path / "private"
    add_version(tmp_path / "first", "1", source)
    (tmp_path / "first" / "versions" / "1").rename(private)
    for path in private.iterdir():
        path.chmod(0o600)
    private.chmod(0o700)
    add_version(tmp_path, "1", private)
    folder = version_folder(tmp_path, "1")
    assert folder.stat().st_mode & 0o005 == 0o005
    assert all(path.stat().st_mode & 0o004 for path in folder.iterdir())


def test_a_damaged_version_is_replaced(tmp_path: Path, source: Path) -> None:
    add_version(tmp_path, "1", source)
    (version_folder(tmp_path, "1") / "model.onnx").write_bytes(b"altered")
    assert add_version(tmp_path, "1", source) is True
    assert served_bundle(tmp_path, "1") == read_bundle(source)


def test_a_replacement_that_is_cut_off_leaves_the_old_version(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_version(tmp_path, "1", source)
    other = Models(tmp_path / "others").get("regression").folder / BUNDLE_FOLDER

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", full)
        with pytest.raises(OSError, match="No space"):
            add_version(tmp_path, "1", other)
    assert served_bundle(tmp_path, "1") == read_bundle(source)
    assert add_version(tmp_path, "1", other) is True
    assert [path.name for path in (tmp_path / "versions").iterdir()] == ["1"]


def test_a_damaged_source_is_refused_and_leaves_nothing(tmp_path: Path, source: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in source.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "model.onnx").write_bytes(b"altered")
    with pytest.raises(BundleError, match=r"model\.onnx was altered"):
        add_version(tmp_path / "served", "1", damaged)
    assert not (tmp_path / "served").exists()
    with pytest.raises(BundleError, match="no complete bundle"):
        served_bundle(tmp_path / "served", "1")


def test_several_syncs_at_once_agree(tmp_path: Path, source: Path) -> None:
    for number in map(str, range(10)):
        with ThreadPoolExecutor(4) as pool:
            added = pool.map(lambda _: add_version(tmp_path, number, source), range(4))  # noqa: B023
            assert sorted(added) == [False, False, False, True]
        assert served_bundle(tmp_path, number) == read_bundle(source)
    assert len(list((tmp_path / "versions").iterdir())) == 10


@pytest.mark.parametrize("version", ["", ".", "..", "../1", "a/b", ".incoming-x", "1\n"])
def test_a_version_cannot_lead_out_of_the_folder(tmp_path: Path, version: str) -> None:
    with pytest.raises(BundleError, match="is no version"):
        version_folder(tmp_path, version)
