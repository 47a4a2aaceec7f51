"""What the gate says of a version: its checks, its figures, passed or failed.

Apart from gate.py, since whoever reads a verdict needs nothing of what judging takes.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from .bundle import Interval

HOLDOUT, NEWEST = "hold-out", "newest labels"


class Segment(BaseModel):
    """The rows of one category or bin: the mean losses, and how much larger the candidate's is."""

    model_config = ConfigDict(frozen=True)

    feature: str
    values: str
    rows: int
    loss: float
    other_loss: float
    harm: float
    harm_at_least: float

    def __str__(self) -> str:
        harm = f"{self.harm:+.4f} (at least {self.harm_at_least:+.4f})"
        return f"{self.feature} {self.values}: loss {harm}"


class Check(BaseModel):
    """One question of the gate, with its figure and its limit in words."""

    model_config = ConfigDict(frozen=True)

    name: str
    passed: bool
    figure: str
    limit: str
    rows: str = ""


class Measured(BaseModel):
    """Every figure of the candidate on one set of rows, and of those it is held against."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    rows: int
    metrics: dict[str, Interval]
    calibration_error: float
    calibration_error_by_chance: float
    gains: dict[str, Interval]
    segments: tuple[Segment, ...]


class Verdict(BaseModel):
    """The gate's answer for one version, against one version of production."""

    model_config = ConfigDict(frozen=True)

    version: str
    production: str | None
    judged_at: datetime
    checks: tuple[Check, ...]
    measured: dict[str, Measured]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [check.name for check in self.checks if not check.passed]

    @property
    def rows(self) -> int:
        """How many hold-out rows it was judged on."""
        return self.measured[HOLDOUT].rows
