"""One run with everything in it, and what a tracker's store must hold afterwards."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from <<cookiecutter.package_name>>.bundle import RunReference
from <<cookiecutter.package_name>>.settings import Settings
from <<cookiecutter.package_name>>.tracking import Scalar, TrainingData, start_run

from ..trained import Trained, write_trained_model

RUN_NAME = "train-20240501"
PARAMETERS: dict[str, Scalar] = {
    "learning_rate": 0.05,
    "max_iter": 100,
    "early_stopping": False,
    "max_depth": None,
    "loss": "log_loss",
}
FOLDS = {
    1: {"fold_roc_auc": 0.71, "fold_log_loss": 0.61},
    2: {"fold_roc_auc": 0.72, "fold_log_loss": 0.62},
    3: {"fold_roc_auc": 0.73, "fold_log_loss": 0.63},
}
METRICS = {"roc_auc": 0.8125, "baseline_roc_auc": 0.75, "gain_over_baseline": 0.0625}
TAGS = {"as_of": "2024-05-01T00:00:00", "task": "binary"}
MORE_TAGS = {"data_fingerprint": "5a" * 32, "git_commit": "c0ffee" + "0" * 34}
DATA = TrainingData(
    sample=pd.DataFrame(
        {
            "event_timestamp": pd.to_datetime(["2024-03-01", "2024-04-01"]),
            "amount": [1.5, 2.5],
            "visits": [3, 4],
            "city": ["berlin", "køge"],
            "buys": [0, 1],
        }
    ),
    rows=12_345,
    label="buys",
    source="a folder, in words: /data",
    fingerprint="5a" * 32,
)


class BrokenError(Exception):
    """What goes wrong inside a run."""


def record(settings: Settings, folder: Path) -> tuple[RunReference, Trained, str | None]:
    """Track one run; returns its reference, its trained model and the model's address."""
    with start_run(settings, RUN_NAME) as run:
        run.log_parameters(PARAMETERS)
        run.log_tags(TAGS)
        run.log_tags(MORE_TAGS)
        run.log_training_data(DATA)
        for step, metrics in FOLDS.items():
            run.log_metrics(metrics, step=step)
        run.log_metrics(METRICS)
        trained = write_trained_model(folder, "multiclass", run.reference)
        run.log_reports(folder / "reports")
        return run.reference, trained, run.log_model(folder, trained.rows)


def break_off(settings: Settings, metrics: dict[str, float]) -> RunReference:
    """Track a run that ends in an exception, which must come through."""
    try:
        with start_run(settings, "broken") as run:
            run.log_metrics(metrics)
            raise BrokenError
    except BrokenError:
        return run.reference
    raise AssertionError("the exception was swallowed")


@contextmanager
def only_loopback() -> Iterator[None]:
    """Fail on any connection of this process that would leave the machine."""

    def connect(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and str(address[0]) not in ("127.0.0.1", "::1"):
            raise AssertionError(f"a connection to {address} was tried")
        return original(self, address)

    original = socket.socket.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        yield
