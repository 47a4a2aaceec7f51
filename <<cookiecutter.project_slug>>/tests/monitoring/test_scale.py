"""Fifty million rows of twenty columns: bounded memory, and the exact answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from <<cookiecutter.package_name>> import database
from <<cookiecutter.package_name>>.monitoring.counting import Counts, count, merge, profile_rows
from <<cookiecutter.package_name>>.monitoring.drift import parquet_rows
from <<cookiecutter.package_name>>.schema import Feature, Signature
from <<cookiecutter.package_name>>.settings import PACKAGE, Settings

FILES = 50
ROWS = 1_000_000
NUMBERS = [f"number_{i}" for i in range(15)]
TEXTS = [f"text_{i}" for i in range(5)]
MOST_BYTES = 4 * 2**30
COUNT = f"""
import resource, sys
from pathlib import Path
from {PACKAGE}.bundle import Profile
from {PACKAGE}.database import connect
from {PACKAGE}.monitoring.counting import count
from {PACKAGE}.monitoring.drift import parquet_rows
from {PACKAGE}.settings import Settings
home = Path(sys.argv[1])
profile = Profile.model_validate_json((home / "profile.json").read_text())
with connect(Settings(home=home)) as db:
    count(parquet_rows(db, str(home / "current")), profile).write(home / "counts.json")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_fifty_million_rows_are_counted_exactly_in_bounded_memory(
    settings: Settings, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({name: random.normal(0, 1, ROWS).astype("float32") for name in NUMBERS})
    for name in TEXTS:
        frame[name] = random.choice(list("abcdef"), ROWS)
    folder = tmp_path / "current"
    folder.mkdir()
    frame.to_parquet(folder / "0.parquet", row_group_size=100_000)
    for number in range(1, FILES):
        os.link(folder / "0.parquet", folder / f"{number}.parquet")
    features = [Feature(name=name) for name in NUMBERS]
    features += [Feature(name=name, type="string") for name in TEXTS]
    signature = Signature(task="regression", label="y", features=tuple(features))
    with database.connect(settings) as db:
        rows = parquet_rows(db, str(folder / "0.parquet"))
        profile = profile_rows(rows, signature, seed=1)
        one = count(rows, profile)
    (tmp_path / "profile.json").write_text(profile.model_dump_json(), encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, "-c", COUNT, str(tmp_path)],
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    counted = Counts.model_validate_json((tmp_path / "counts.json").read_text(encoding="utf-8"))
    assert counted == merge([one] * FILES)
    assert counted.rows == FILES * ROWS
    assert int(answer.stdout) < MOST_BYTES
