"""The time that rows are stamped with."""

from __future__ import annotations

import logging
import time

from ..settings import Settings

logger = logging.getLogger(__name__)


class Clock:
    """Runs with the machine's clock, from the instant that counts as now (``settings.as_of``).

    It is set anew whenever other data has been taken in, so that what a running server logs lies
    where the drift job looks.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._origin = settings.data_clock
        self.offset = settings.clock_offset.total_seconds()

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self.offset

    def refresh(self) -> None:
        """Look whether another instant counts as now."""
        try:
            origin = self._settings.data_clock
        except (OSError, ValueError, KeyError) as error:
            logger.warning("the data's newest event cannot be read, the clock goes on: %r", error)
            return
        if origin != self._origin:
            self._origin = origin
            self.offset = self._settings.clock_offset.total_seconds()
