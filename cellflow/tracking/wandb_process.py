"""wandb in a process that is not wandb's own: nothing asked, nothing printed, nothing left changed."""

from __future__ import annotations

import netrc
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["has_credentials", "is_reachable", "unpatched"]

_TIMEOUT = 10.0
_QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


def has_credentials(settings: Any) -> bool:
    """Whether wandb can log in without asking, from where it looks itself."""
    if settings.api_key or settings.identity_token_file or os.environ.get("WANDB_API_KEY"):
        return True
    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    hosts = {urlsplit(settings.base_url).hostname or "", "api.wandb.ai"}
    for place in filter(None, places):
        try:
            if hosts & netrc.netrc(Path(place).expanduser()).hosts.keys():
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def is_reachable(settings: Any) -> bool:
    """Whether the server of wandb answers at all; with proxies and time limit."""
    try:
        with urllib.request.urlopen(settings.base_url, timeout=_TIMEOUT):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError) as error:
        # A certificate that we do not trust: wandb may know better.
        return isinstance(getattr(error, "reason", None), ssl.SSLError)


@contextmanager
def unpatched() -> Iterator[None]:
    """Take back what wandb changes in the process: exit hooks, and variables that children would inherit."""
    leave, hook = sys.exit, sys.excepthook
    names = (*_QUIET, "WANDB_SERVICE")
    before = {name: os.environ.get(name) for name in names}
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        sys.exit, sys.excepthook = leave, hook
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old
