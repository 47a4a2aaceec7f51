"""Commands of the feature store."""

from __future__ import annotations

import typer

from ..console import out
from ..settings import Settings

commands = typer.Typer(no_args_is_help=True, help="Compute features and labels.")


@commands.command("build")
def features_build() -> None:
    """Compute the features and labels of all training examples, and the features as of now."""
    from ..features import build

    built = build(Settings())
    kept = "" if built.sampled_share == 1 else f" (a sample of {built.sampled_share:.1%})"
    out.print(
        f"{built.examples:,} examples{kept} at {built.instants - 1} times, "
        f"{built.entities_now:,} entities as of now"
    )
