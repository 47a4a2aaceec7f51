"""Which variant answers a request. No input, no output, about a microsecond."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..experiment import Experiment, ExperimentError, slot
from ..served_models import PRODUCTION, VERSION_NAME, version_folder

CONTROL = "control"


class UnknownVariantError(ExperimentError):
    """A request asks for a variant that the experiment does not have."""


@dataclass(frozen=True)
class Route:
    """A variant's place among the models, its name, and the experiment that the answer counts in.

    ``experiment`` is empty for whoever is outside of it: no user id, or a forced variant.
    """

    index: int
    variant: str
    experiment: str


class Router:
    """Maps users to variants; without an experiment everybody gets production, as the control."""

    def __init__(self, experiment: Experiment | None) -> None:
        self.names = tuple(experiment.weights) if experiment else (CONTROL,)
        self._key = experiment.key if experiment else b""
        self._outside = tuple(Route(index, name, "") for index, name in enumerate(self.names))
        self._forced = {route.variant: route for route in self._outside}
        self._anonymous = self._outside[0]
        self._slots: tuple[Route, ...] = ()
        if experiment and len(self.names) > 1:
            inside = [replace(route, experiment=experiment.name) for route in self._outside]
            self._slots = tuple(inside[index] for index in experiment.slots)

    def route(self, user_id: str | None, forced: str | None = None) -> Route:
        """Choose the variant of a request.

        Args:
            user_id: whose request it is; without one the control answers.
            forced: the variant that a tester asks for.

        Raises:
            UnknownVariantError: there is no such variant, and which there are.
        """
        if forced is not None:
            try:
                return self._forced[forced]
            except KeyError:
                raise UnknownVariantError(
                    f"there is no variant {forced!r}: there are {', '.join(self.names)}"
                ) from None
        if not user_id or not self._slots:
            return self._anonymous
        return self._slots[slot(user_id, self._key)]


def variant_versions(
    experiment: Experiment | None, served: Path, aliases: Mapping[str, str]
) -> tuple[list[str], str | None]:
    """The served version of each variant, in the order of the routes, and the shadow's.

    Raises:
        ExperimentError: a variant names neither an alias nor a version that is there.
    """
    if experiment is None:
        return [aliases[PRODUCTION]], None
    shadow = experiment.shadow
    return (
        [_version(variant.model, served, aliases) for variant in experiment.variants],
        _version(shadow.model, served, aliases) if shadow else None,
    )


def _version(model: str, served: Path, aliases: Mapping[str, str]) -> str:
    version = aliases.get(model, model)
    if not VERSION_NAME.fullmatch(version) or not version_folder(served, version).is_dir():
        raise ExperimentError(
            f"the experiment names the model {model!r}, which is neither a served alias "
            f"({', '.join(sorted(aliases)) or 'none'}) nor a version below {served}: run "
            "`registry sync`, or correct the experiment"
        )
    return version
