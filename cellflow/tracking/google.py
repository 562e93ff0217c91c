"""The client of Google Sheets, with credentials from the usual places."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cellflow.tracking.tracker import TrackerUnavailableError

__all__ = ["connect"]

ENDPOINT = "CELLFLOW_SHEETS_URL"
"""Environment variable for tests and proxies: where requests for Google go instead, without credentials."""

CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
_HOSTS = ("https://sheets.googleapis.com", "https://www.googleapis.com")
_TIMEOUT = 20.0


def connect() -> tuple[Any, str | None]:
    """Client of Google Sheets, and the account it speaks for where that is known.

    Raises
    ------
    TrackerUnavailableError
        If gspread or credentials are missing. No browser is opened and nobody is asked.
    """
    try:
        import gspread
    except ImportError:
        raise TrackerUnavailableError(
            "the package gspread is missing; install it with: pip install 'cellflow[sheet]'"
        ) from None
    url = os.environ.get(ENDPOINT, "").rstrip("/")
    if url:
        import requests

        nobody: Any = None
        client = gspread.Client(nobody, session=requests.Session(), http_client=_redirect(url))
        account = None
    else:
        credentials = _credentials()
        client = gspread.authorize(credentials)
        account = getattr(credentials, "service_account_email", None)
    client.set_timeout(_TIMEOUT)
    return client, account


def _redirect(base: str) -> Any:
    """Class of an HTTP client that speaks to another server than Google's."""
    from gspread.http_client import HTTPClient

    class Redirected(HTTPClient):
        def request(self, method: str, endpoint: str, *args: Any, **kwargs: Any) -> Any:
            for host in _HOSTS:
                endpoint = endpoint.replace(host, base, 1)
            return super().request(method, endpoint, *args, **kwargs)

    return Redirected


def _credentials() -> Any:
    """From the file that GOOGLE_APPLICATION_CREDENTIALS names, else from gspread's own places."""
    from gspread import auth

    usual = (auth.DEFAULT_SERVICE_ACCOUNT_FILENAME, auth.DEFAULT_AUTHORIZED_USER_FILENAME)
    named = os.environ.get(CREDENTIALS)
    for path in [Path(named).expanduser()] if named else map(Path, usual):
        if named or path.is_file():
            return _from_file(path, auth.DEFAULT_SCOPES)
    raise TrackerUnavailableError(
        f"there are no Google credentials; set {CREDENTIALS} to the key file of a service account, or "
        f"put that file at {usual[0]}"
    )


def _from_file(path: Path, scopes: list[str]) -> Any:
    """Credentials of a service account, or of a person who has logged in with gspread."""
    import google.oauth2.credentials
    import google.oauth2.service_account

    google_: Any = google  # its functions have no types
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("type") == "service_account":
            service_account = google_.oauth2.service_account.Credentials
            return service_account.from_service_account_info(content, scopes=scopes)
        return google_.oauth2.credentials.Credentials.from_authorized_user_info(content)
    except Exception as error:  # its text could hold a part of the file
        raise TrackerUnavailableError(
            f"the Google credentials in {path} cannot be used ({type(error).__name__}); expected the "
            "JSON key file of a service account"
        ) from None
