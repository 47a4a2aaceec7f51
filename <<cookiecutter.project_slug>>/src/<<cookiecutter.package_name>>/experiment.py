"""An A/B test: its variants, their weights and who sees which; server and reports read it alike.

One file in the home folder describes the running experiment; without the file there is none::

    {"name": "deeper-trees",
     "variants": [{"name": "control", "model": "production", "weight": "0.9"},
                  {"name": "treatment", "model": "7", "weight": "0.1"}]}

The first variant is the control: whoever comes without a user id gets it, outside the experiment.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ProjectError

SLOTS = 10_000
RESOLUTION = Decimal(1) / SLOTS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Weight = Annotated[Decimal, Field(ge=0, le=1, multiple_of=RESOLUTION)]
Weights = Mapping[str, Decimal]


class ExperimentError(ProjectError):
    """An experiment's description is not valid, or what is asked of it does not fit."""


class Shadow(BaseModel):
    """A model that is scored with every request and never answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = "shadow"
    model: Name


class Variant(BaseModel):
    """One arm: a model, by an alias or a version's number, and its share of the users.

    ``ranges`` say which of the 10,000 slots are its own, after a ramp has moved some; without them
    the variants lie one after the other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    model: Name
    weight: Weight
    ranges: tuple[tuple[int, int], ...] = ()


class Allocation(BaseModel):
    """Weights and the instant (UTC, ``settings.as_of``) since when they hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: datetime
    weights: dict[Name, Weight]


class Experiment(BaseModel):
    """The variants with their users.

    A user's slot depends on nothing but the salt and the user's id, so every process, machine and
    restart agrees, and experiments of different salts are independent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    salt: str = Field("", max_length=64, pattern=r"^[ -~]*$", description="Default: the name.")
    variants: tuple[Variant, ...] = Field(min_length=1)
    shadow: Shadow | None = None
    planned_users: int = Field(10_000, ge=100, description="Where the interval is tightest.")
    history: tuple[Allocation, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        arms = [variant.name for variant in self.variants]
        names = [*arms, self.shadow.name] if self.shadow else arms
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"variants are named twice: {', '.join(repeated)}")
        if len(names) < 2:
            raise ValueError("one variant alone is no experiment: add a second one or a shadow")
        if (total := sum(variant.weight for variant in self.variants)) != 1:
            raise ValueError(f"the weights add to {total}, not to 1")
        if self.history and self.history[-1].weights != self.weights:
            raise ValueError("the weights differ from the newest of `history`: change both by ramp")
        for allocation in self.history:
            if set(allocation.weights) != set(arms) or sum(allocation.weights.values()) != 1:
                raise ValueError("each of `history` needs the weights of all variants, in all 1")
        _ = self.slots
        return self

    @property
    def weights(self) -> dict[str, Decimal]:
        """Each variant's share."""
        return {variant.name: variant.weight for variant in self.variants}

    @property
    def models(self) -> tuple[str, ...]:
        """Every alias or version that is named, the shadow's included."""
        shadow = [self.shadow.model] if self.shadow else []
        return tuple(dict.fromkeys([*(variant.model for variant in self.variants), *shadow]))

    @property
    def key(self) -> bytes:
        """What keys the hash of this experiment."""
        return (self.salt or self.name).encode("ascii")

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Which variant, by its index, each slot belongs to."""
        shares = [int(variant.weight * SLOTS) for variant in self.variants]
        if not any(variant.ranges for variant in self.variants):
            return tuple(index for index, share in enumerate(shares) for _ in range(share))
        owned = [
            (start, end, index)
            for index, variant in enumerate(self.variants)
            for start, end in variant.ranges
        ]
        covered = 0
        for start, end, _ in sorted(owned):
            if start != covered or end <= start:
                raise ValueError(f"`ranges` must hold each of {SLOTS:,} slots once: see {start}")
            covered = end
        slots = tuple(index for start, end, index in sorted(owned) for _ in range(start, end))
        if [slots.count(index) for index in range(len(shares))] != shares:
            raise ValueError("`ranges` do not match the weights: change both by `experiment ramp`")
        return slots

    def assign(self, user_id: str) -> Variant:
        """The user's variant."""
        return self.variants[self.slots[slot(user_id, self.key)]]

    def ramped(self, weights: Weights, since: datetime) -> Experiment:
        """The same experiment with other weights, which moves no more users than it must.

        Only variants that shrink lose users and only those that grow gain any. Three variants need
        a remembered layout for that: no function of the weights alone can do it (Angel and Spinka
        2019, Pairwise optimal coupling of multiple random variables). The control gives up its
        highest slots and a treatment its lowest, so two variants return as they went.

        Args:
            weights: of the variants that change; the control takes or gives what is left.
            since: from when on they hold.

        Raises:
            ExperimentError: a variant is unknown or the weights are not valid.
        """
        control = self.variants[0].name
        if unknown := sorted(set(weights) - set(self.weights)):
            raise ExperimentError(
                f"{self.name} has no variant {', '.join(unknown)}: it has {', '.join(self.weights)}"
            )
        new = {**self.weights, **weights}
        if control not in weights:
            new[control] += 1 - sum(new.values())
        arms = [
            {"name": arm.name, "model": arm.model, "weight": new[arm.name]} for arm in self.variants
        ]
        target = validated({**self.model_dump(), "variants": arms, "history": ()})
        moved = _moved(self.slots, [target.slots.count(index) for index in range(len(arms))])
        for index, arm in enumerate(arms):
            arm["ranges"] = _ranges(moved, index)
        history = (*self.history, Allocation(since=since, weights=new))
        return validated({**self.model_dump(), "variants": arms, "history": history})


def slot(user_id: str, key: bytes) -> int:
    """The user's place among the slots: uniform, and fixed by key and id alone."""
    digest = blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "big") * SLOTS >> 64


def validated(content: object) -> Experiment:
    """Check a description.

    Raises:
        ExperimentError: it is not valid; each problem with its place.
    """
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise ExperimentError(f"the experiment is not valid: {_described(error)}") from error


def read_experiment(path: Path) -> Experiment | None:
    """The experiment that a file describes; None without the file.

    Raises:
        ExperimentError: it cannot be read or is not valid.
    """
    try:
        return Experiment.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ExperimentError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise ExperimentError(f"{path} is not valid: {_described(error)}") from error


def write_experiment(path: Path, experiment: Experiment) -> None:
    """Replace the file in one step: a reader sees the old experiment or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".experiment-", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(experiment.model_dump_json(indent=2, exclude_defaults=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    Path(name).chmod(0o644)
    Path(name).replace(path)


def _moved(slots: tuple[int, ...], shares: list[int]) -> list[int]:
    """Hand as few slots as possible from those that have too many to those that lack some."""
    moved = list(slots)
    free: list[int] = []
    for index, share in enumerate(shares):
        own = [place for place, owner in enumerate(slots) if owner == index]
        surplus = max(0, len(own) - share)
        free += own[len(own) - surplus :] if index == 0 else own[:surplus]
    waiting = iter(sorted(free))
    for index, share in enumerate(shares):
        for _ in range(share - slots.count(index)):
            moved[next(waiting)] = index
    return moved


def _ranges(slots: list[int], index: int) -> tuple[tuple[int, int], ...]:
    """The runs of slots of one variant, as (first, behind the last)."""
    runs = (list(run) for _, run in groupby(enumerate(slots), key=lambda item: item[1]))
    return tuple((run[0][0], run[-1][0] + 1) for run in runs if run[0][1] == index)


def _described(error: ValidationError) -> str:
    problems = (
        (".".join(map(str, found["loc"])), found["msg"].removeprefix("Value error, "))
        for found in error.errors()
    )
    return "; ".join(f"{place}: {message}" if place else message for place, message in problems)
