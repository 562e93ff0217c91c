"""Keep secrets of the environment out of everything that is written or sent."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

__all__ = ["RedactSecrets", "redact", "redact_tree", "without_private_facts"]

STARS = "***"

_SECRET_NAME = re.compile(
    r"(^|_)(API_?)?KEY$|TOKEN$|SECRET|PASSWORD|PASSWD|WEBHOOK|PRIVATE_KEY", re.IGNORECASE
)
"""Names such as WANDB_API_KEY, KAGGLE_KEY, KAGGLE_API_TOKEN, SLACK_WEBHOOK_URL, AWS_SECRET_ACCESS_KEY."""

_SECRET_FIELDS = ("private_key", "private_key_id", "client_secret", "refresh_token", "token", "key")
"""What is secret in a file of credentials."""

_SHORTEST = 6
"""Shorter values would turn ordinary text into stars."""


_PRIVATE_FACTS = ("hostname", "folder", "variables")
"""What environment.json says of a person's machine rather than of the experiment."""


def without_private_facts(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What environment.json says, without what is nobody's business elsewhere.

    Examples
    --------
    >>> without_private_facts({"hostname": "annas-laptop", "cores": 2})
    {'cores': 2}
    """
    return {name: value for name, value in environment.items() if name not in _PRIVATE_FACTS}


def is_secret(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def secret_values(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Every text that must not be written, longest first, in each spelling it may appear in.

    Values of variables with secret names, and what is secret in Google credentials, whether a variable
    holds them itself or the path of their file.
    """
    found: set[str] = set()
    for name, value in environ.items():
        if is_secret(name):
            found.update(_parts(value))
        if name.upper().startswith("GOOGLE"):
            for text in _google_secrets(value):
                found.update(_parts(text))
    spellings = {form for text in found for form in (text, json.dumps(text)[1:-1], quote(text, ""))}
    return sorted((text for text in spellings if len(text) >= _SHORTEST), key=len, reverse=True)


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Text with every secret of the environment replaced by stars."""
    return _replace(text, secret_values(environ))


def redact_tree(value: Any, environ: Mapping[str, str] = os.environ) -> Any:
    """Nested plain values with every secret in a text replaced by stars."""
    return _replace_all(value, secret_values(environ))


class RedactSecrets(logging.Filter):
    """Filter for log handlers that replaces secrets in messages and tracebacks; no record is dropped."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record where a secret is in it."""
        hidden = secret_values()
        try:
            message = record.getMessage()
        except Exception:
            return True  # a wrong format string: logging itself will say so
        clean = _replace(message, hidden)
        if clean != message:
            record.msg, record.args = clean, None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = _replace(record.exc_text, hidden)
        return True


def _parts(value: str) -> Iterator[str]:
    """A secret, each of its lines, and the path of one that is a URL."""
    value = value.strip()
    yield value
    lines = [line.strip() for line in value.splitlines()]
    if len(lines) > 1:
        yield from (line for line in lines if not line.startswith("-----"))
    if "://" in value:
        try:
            yield urlsplit(value).path.strip("/")
        except ValueError:
            return


def _google_secrets(value: str) -> tuple[str, ...]:
    """What is secret in credentials that a variable holds, or whose path it holds."""
    if value.lstrip().startswith("{"):
        return _fields(value)
    try:
        path = Path(value)
        return _fields_of_file(path, path.stat().st_mtime_ns) if path.is_file() else ()
    except (OSError, ValueError):
        return ()


@lru_cache(maxsize=8)
def _fields_of_file(path: Path, changed: int) -> tuple[str, ...]:
    del changed  # part of the cache's key
    try:
        return _fields(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return ()


def _fields(text: str) -> tuple[str, ...]:
    try:
        content = json.loads(text)
    except ValueError:
        return ()
    if not isinstance(content, dict):
        return ()
    return tuple(value for key in _SECRET_FIELDS if isinstance(value := content.get(key), str))


def _replace(text: str, hidden: list[str]) -> str:
    for secret in hidden:
        text = text.replace(secret, STARS)
    return text


def _replace_all(value: Any, hidden: list[str]) -> Any:
    if isinstance(value, str):
        return _replace(value, hidden)
    if isinstance(value, dict):
        return {key: _replace_all(item, hidden) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_all(item, hidden) for item in value]
    return value
