"""What commands say of themselves on standard error: words, or with PREP_LOG=json an object on each line."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime

JSON = "json"


class _Objects(logging.Formatter):
    """One JSON object for each record: time, level, message, and the fields that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def as_objects() -> bool:
    """Whether machines read along."""
    return os.environ.get("PREP_LOG") == JSON


def set_up() -> None:
    """Send records to standard error in the form asked for; of libraries warnings alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Objects() if as_objects() else logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("jobs").setLevel(logging.INFO)
