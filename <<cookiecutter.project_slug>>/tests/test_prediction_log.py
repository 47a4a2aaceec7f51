from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from <<cookiecutter.package_name>>.prediction_log import (
    ROTATE_FILE,
    Feedback,
    FeedbackRecord,
    ModelRecord,
    RowsRecord,
    SegmentWriter,
    read_segment,
)
from <<cookiecutter.package_name>>.schema import Signature

from .logs import BINARY, logged_rows, records, request_ids, segments
from .trained import SIGNATURES

APPEND_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from tests.logs import BINARY, logged_rows
from <<cookiecutter.package_name>>.prediction_log import SegmentWriter

writer = SegmentWriter(Path(sys.argv[1]))
writer.describe("1", BINARY)
number = 0
while True:
    assert writer.append(logged_rows([str(number)]))
    print(number, time.time(), flush=True)
    number += 1
    time.sleep(0.001)
"""

FULL_DISK = """
import resource, sys, time
from pathlib import Path
from tests.logs import BINARY, logged_rows
from <<cookiecutter.package_name>>.prediction_log import SegmentWriter

def limit(size):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

def wait(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)

writer = SegmentWriter(Path(sys.argv[1]))
writer.describe("1", BINARY)
writer.append(logged_rows(["before"]))
wait(lambda: writer.written == 1)
[segment] = (Path(sys.argv[1]) / "segments").iterdir()
limit(segment.stat().st_size + 30)
writer.append(logged_rows(["lost"] * 500))
wait(lambda: writer.dropped == 500)
limit(-1)
writer.append(logged_rows(["after"]))
wait(lambda: writer.written == 2)
writer.close()
print(writer.written, writer.dropped)
"""


def run_python(code: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )


def eventually(true: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize("signature", SIGNATURES.values(), ids=SIGNATURES)
def test_a_segment_explains_itself_and_holds_what_was_answered(
    tmp_path: Path, signature: Signature
) -> None:
    rows = logged_rows(["a", "b", "c"], signature, at=1e9, user_ids=["ü", None, "w"])
    writer = SegmentWriter(tmp_path)
    writer.describe("1", signature)
    assert writer.append(rows)
    writer.close()
    model, record = records(tmp_path)
    assert isinstance(model, ModelRecord)
    assert Signature.model_validate_json(model.signature) == signature
    assert isinstance(record, RowsRecord)
    assert record.request_ids == ["a", "b", "c"]
    assert record.user_ids == ["ü", None, "w"]
    numbers = rows.blocks.get("numbers", np.zeros(0))
    assert record.numbers == numbers.astype("<f4").tobytes()
    assert record.strings == rows.blocks.get("strings", np.zeros(0)).ravel().tolist()
    assert record.scores == rows.scores.tobytes()
    assert np.frombuffer(record.at, "<f8").tolist() == [1e9] * 3
    assert (writer.written, writer.dropped) == (3, 0)


def test_rows_of_one_moment_are_one_record_for_each_model_and_variant(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    for version in ("1", "2"):
        writer.describe(version, BINARY)
    for number in range(6):
        version, variant = ("1", "2")[number % 2], ("a", "b")[number // 4]
        assert writer.append(logged_rows([str(number)], version=version, variant=variant))
    writer.append(Feedback("0", 1, 1e9))
    writer.append(Feedback("0", 0, 2e9))
    writer.close()
    found = records(tmp_path)
    assert [record.request_ids for record in found if isinstance(record, RowsRecord)] == [
        *(["0", "2"], ["1", "3"], ["4"], ["5"])
    ]
    assert sum(isinstance(record, ModelRecord) for record in found) == 2
    [feedback] = [record for record in found if isinstance(record, FeedbackRecord)]
    assert (feedback.request_ids, feedback.outcomes) == (["0", "0"], [1, 0])


def test_many_threads_lose_and_repeat_nothing(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, rotate_bytes=20_000)
    writer.describe("1", BINARY)

    def append(thread: int) -> None:
        for number in range(200):
            assert writer.append(logged_rows([f"{thread}-{number}"]))

    threads = [threading.Thread(target=append, args=[thread]) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert writer.written == 800
    assert sorted(request_ids(tmp_path)) == sorted(f"{t}-{n}" for t in range(4) for n in range(200))


def test_every_torn_tail_is_found_and_the_rest_is_read(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    writer.describe("1", BINARY)
    writer.append(logged_rows(["a"]))
    eventually(lambda: writer.written == 1)
    [path] = segments(tmp_path)
    first = path.stat().st_size
    writer.append(logged_rows(["b"]))
    writer.close()
    content = path.read_bytes()
    for length in range(first, len(content)):
        path.write_bytes(content[:length])
        found = list(read_segment(path))
        assert found[2:] == ([length - first] if length > first else [])
        assert isinstance(found[1], RowsRecord)
        assert found[1].request_ids == ["a"]


def test_a_flipped_bit_loses_its_own_record_only(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    writer.describe("1", BINARY)
    for number in range(3):
        writer.append(logged_rows([f"row {number}"], variant=str(number)))
    writer.close()
    [path] = segments(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(b"row 1")] ^= 1
    path.write_bytes(content)
    assert request_ids(tmp_path) == ["row 0", "row 2"]
    assert sum(isinstance(found, int) for found in read_segment(path)) == 1


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, most_queued_bytes=10_000)
    writer.describe("1", BINARY)
    assert not writer.append(logged_rows(["x"] * 1_000))
    assert writer.append(logged_rows(["y"]))
    writer.close()
    assert not writer.append(logged_rows(["late"]))
    assert (writer.written, writer.dropped) == (1, 1_001)
    assert request_ids(tmp_path) == ["y"]


def test_a_segment_is_locked_until_it_is_old_or_large_or_asked_for(tmp_path: Path) -> None:
    old = SegmentWriter(tmp_path / "old", rotate_seconds=0.5)
    large = SegmentWriter(tmp_path / "large", rotate_bytes=10)
    asked = SegmentWriter(tmp_path / "asked")
    for writer in (old, large, asked):
        writer.describe("1", BINARY)
        writer.append(logged_rows(["a"]))
        eventually(lambda writer=writer: writer.written == 1)
    assert is_locked(segments(tmp_path / "asked")[0])
    (tmp_path / "asked" / ROTATE_FILE).touch()
    for writer, name in ((old, "old"), (large, "large"), (asked, "asked")):
        [path] = segments(tmp_path / name)
        eventually(lambda path=path: not is_locked(path))
        writer.append(logged_rows(["b"]))
        writer.close()
        assert len(segments(tmp_path / name)) == 2
        assert request_ids(tmp_path / name) == ["a", "b"]


def test_a_version_that_becomes_another_model_is_described_again(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    for case in ("binary", "regression"):
        writer.describe("1", SIGNATURES[case])
        writer.append(logged_rows([case], SIGNATURES[case]))
    writer.close()
    names = [type(record).__name__ for record in records(tmp_path)]
    assert names == ["ModelRecord", "RowsRecord"] * 2


def test_a_removed_segment_is_replaced(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    writer.describe("1", BINARY)
    writer.append(logged_rows(["a"]))
    eventually(lambda: writer.written == 1)
    segments(tmp_path)[0].unlink()
    writer.append(logged_rows(["b"]))
    writer.close()
    assert request_ids(tmp_path) == ["b"]


def test_a_kill_loses_at_most_a_second(tmp_path: Path) -> None:
    process = run_python(APPEND_UNTIL_KILLED, tmp_path)
    assert process.stdout
    appended = [process.stdout.readline().split()]
    time.sleep(2)
    process.send_signal(signal.SIGKILL)
    killed = time.time()
    appended += [line.split() for line in process.stdout if line.endswith("\n")]
    process.wait()
    must = [number for number, at in appended if float(at) < killed - 1]
    kept = request_ids(tmp_path)
    assert len(must) > 100
    assert kept == [number for number, _ in appended][: len(kept)]
    assert len(kept) >= len(must)
    assert not is_locked(segments(tmp_path)[0])


def test_a_full_disk_drops_rows_and_the_log_recovers(tmp_path: Path) -> None:
    process = run_python(FULL_DISK, tmp_path)
    output, _ = process.communicate(timeout=60)
    assert output.split() == ["2", "500"]
    assert request_ids(tmp_path) == ["before", "after"]
    assert not any(isinstance(found, int) for found in read_segment(segments(tmp_path)[0]))


def test_a_folder_that_cannot_be_written_drops_rows(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.write_text("a file stands in the way", encoding="utf-8")
    writer = SegmentWriter(folder)
    writer.describe("1", BINARY)
    writer.append(logged_rows(["a"]))
    eventually(lambda: writer.dropped == 1)
    folder.unlink()
    writer.append(logged_rows(["b"]))
    writer.close()
    assert request_ids(folder) == ["b"]
