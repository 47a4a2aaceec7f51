"""A registered version, as the registry shows it and the model card describes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

VALIDATION_TAG = "validation"


@dataclass(frozen=True)
class Version:
    """A registered version as the registry shows it."""

    number: str
    aliases: tuple[str, ...]
    created_at: datetime
    tags: dict[str, str]

    @property
    def validation(self) -> str:
        """``passed``, ``failed`` or ``not validated``."""
        return self.tags.get(VALIDATION_TAG, "not validated")
