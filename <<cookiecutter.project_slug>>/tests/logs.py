"""Rows for the prediction log, and what its segments hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from <<cookiecutter.package_name>>.prediction_log import (
    SEGMENTS_FOLDER,
    FeedbackRecord,
    LoggedRows,
    ModelRecord,
    RowsRecord,
    read_segment,
)
from <<cookiecutter.package_name>>.schema import Feature, Signature

BINARY = Signature(
    task="binary",
    label="buys",
    features=(Feature(name="amount"), Feature(name="visits", type="int")),
    classes=(0, 1),
)


def logged_rows(
    request_ids: Sequence[str],
    signature: Signature = BINARY,
    version: str = "1",
    at: float | None = None,
    user_ids: Sequence[str | None] | None = None,
    **changes: Any,
) -> LoggedRows:
    """Answered rows with these ids; features and scores follow from how many they are."""
    count = len(request_ids)
    random = np.random.default_rng(0)
    columns = {
        feature.name: random.choice(["berlin", "køge", ""], count).astype(object)
        if feature.type == "string"
        else random.integers(0, 12, count)
        for feature in signature.features
    }
    shape = (count, len(signature.classes)) if signature.classes else (count,)
    values: dict[str, Any] = {
        "model_version": version,
        "variant": "control",
        "experiment": "",
        "shadow": False,
        "request_ids": request_ids,
        "user_ids": user_ids or [None] * count,
        "at": np.full(count, time.time() if at is None else at),
        "latency_seconds": np.full(count, 0.001, np.float32),
        "blocks": signature.blocks(columns),
        "scores": random.random(shape, np.float32),
    }
    return LoggedRows(**{**values, **changes})


def segments(folder: Path) -> list[Path]:
    return sorted((folder / SEGMENTS_FOLDER).glob("*"))


def records(folder: Path) -> list[ModelRecord | RowsRecord | FeedbackRecord]:
    found = [record for path in segments(folder) for record in read_segment(path)]
    return [record for record in found if not isinstance(record, int)]


def request_ids(folder: Path) -> list[str]:
    return [
        request_id
        for record in records(folder)
        if isinstance(record, RowsRecord)
        for request_id in record.request_ids
    ]
