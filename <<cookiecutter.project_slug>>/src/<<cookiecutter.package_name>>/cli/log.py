"""Commands of the prediction log."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import err, out
from ..settings import Settings

commands = typer.Typer(no_args_is_help=True, help="Keep the log of predictions and feedback.")


@commands.command("compact")
def log_compact(
    now: Annotated[
        bool, typer.Option("--now", help="Ask running servers to close their segments first.")
    ] = False,
) -> None:
    """Turn closed segments into Parquet by day; remove days older than ML_LOG_RETENTION_DAYS.

    Example: log compact --now
    """
    from ..compaction import compact

    settings = Settings()
    done = compact(settings, now)
    out.print(
        f"{done.rows:,} rows and {done.feedback:,} outcomes of {done.segments} segments, "
        f"{done.expired_days} expired days removed; see {settings.prediction_log_dir}",
        markup=False,
    )
    if done.damaged_bytes:
        err.print(
            f"[yellow]left out[/]: {done.damaged_bytes:,} bytes that a kill left half-written"
        )


@commands.command("forget")
def log_forget(
    user: Annotated[str, typer.Argument(help="The user_id, as requests name it.")],
) -> None:
    """Remove a user's rows and the feedback on them, everywhere in the log.

    Example: log forget C00001
    """
    from ..compaction import forget

    done = forget(Settings(), user)
    out.print(
        f"removed {done.rows:,} rows and {done.feedback:,} outcomes from {done.files} files; "
        "what the user's next requests bring is logged again",
        markup=False,
    )
