"""The terminal: results on standard output, progress and warnings on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")

WIDTH_WITHOUT_TERMINAL = 120

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
if not out.is_terminal:
    out.width = WIDTH_WITHOUT_TERMINAL


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Iterate with a progress bar that disappears when the work is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        yield from progress.track(items, description=description)


@contextmanager
def counting(description: str) -> Iterator[Callable[[int], object]]:
    """Show how many were done so far, where nobody knows how many there will be."""
    columns = (TextColumn("{task.description}: {task.completed:,.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(description, total=None)
        yield lambda count: progress.advance(task, count)
