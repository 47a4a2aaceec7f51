"""The form of the server's log: lines for people, or JSON for a collector."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

TEXT = {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; with request_id and error where they are known."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        at = datetime.fromtimestamp(record.created, timezone.utc)
        content: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", None):
            content["request_id"] = request_id
        if record.exc_info:
            content["error"] = self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False)


def log_config(form: str) -> dict[str, Any]:
    """The configuration of Python's logging for ``settings.server_log``."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": JsonFormatter} if form == "json" else TEXT},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "INFO", "handlers": ["stderr"]},
    }
