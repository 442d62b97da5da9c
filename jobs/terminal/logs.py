"""Logs to standard error, as text or, with PREP_LOG=json, as one JSON object per line."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime

JSON = "json"


class _Objects(logging.Formatter):
    """Formats a record as a JSON object: time (UTC), level, message, and the record's extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats one record as one line."""
        content = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False)


def as_objects() -> bool:
    """Whether logs and progress are written as JSON objects."""
    return os.environ.get("PREP_LOG") == JSON


def set_up() -> None:
    """Sends log records to standard error; from libraries only warnings and errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Objects() if as_objects() else logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("jobs").setLevel(logging.INFO)
