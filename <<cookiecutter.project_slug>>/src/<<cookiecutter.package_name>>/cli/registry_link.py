"""The command that links versions into the registry of Weights & Biases."""

from __future__ import annotations

from ..console import out
from ..settings import Settings
from .registry import commands


@commands.command("link")
def registry_link() -> None:
    """Link the versions that wait, and those with an alias, into the registry of W&B.

    Their runs must be there: upload what was logged offline by `wandb sync` first.

    Example: WANDB_MODE=online registry link
    """
    from ..registry import Registry
    from ..tracking.wandb import link

    settings = Settings()
    versions = sorted(Registry(settings).versions(), key=lambda version: bool(version.aliases))
    numbers = link(settings, versions)
    out.print(f"linked into the registry of W&B: version {', '.join(numbers) or 'none'}")
