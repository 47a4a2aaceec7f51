"""What a model was made from: the data's fingerprint, the code's commit and the libraries."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from importlib.metadata import version

import pandas as pd

PACKAGES = ("scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "pandas")


def fingerprint(frame: pd.DataFrame) -> str:
    """SHA-256 over the rows' hashes, in order: the same rows give the same fingerprint."""
    return hashlib.sha256(
        pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()
    ).hexdigest()


def git_commit() -> str | None:
    """The commit of the working folder, with ``-dirty`` where files differ; None outside git."""
    git = shutil.which("git")
    if git is None:
        return None
    answer = subprocess.run(  # noqa: S603
        [git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() if answer.returncode == 0 else None


def package_versions() -> dict[str, str]:
    """The libraries that shape a model."""
    return {name: version(name) for name in PACKAGES}
