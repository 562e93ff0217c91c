"""Datasets on Kaggle, through its official client.

The client is imported when it is used: its import asks the server who the key belongs to, and its
methods print, and may leave the process. All of that is caught here. Keys come from the environment
(KAGGLE_USERNAME and KAGGLE_KEY, or KAGGLE_API_TOKEN) or the client's own file, and no message has them.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellflow.errors import CellflowError
from cellflow.storage.atomic import write_json

__all__ = ["Existing", "KaggleDatasets", "Owned"]

_log = logging.getLogger(__name__)

INSTALL = 'pip install "cellflow[kaggle]"'
NO_KEY = (
    "Kaggle wants a key, and found none that it accepts. Make one at https://www.kaggle.com/settings "
    "(API, Create New Token), then set KAGGLE_USERNAME and KAGGLE_KEY, or KAGGLE_API_TOKEN, or put the "
    "file kaggle.json into ~/.kaggle."
)
_SECRETS = ("KAGGLE_KEY", "KAGGLE_API_TOKEN")
_MOST_PAGES = 1000
_MOST_BYTES = 2**24
"""What is read at most of a text."""
_LICENSE = "unknown"
"""What a dataset says of its license until a person says more on the site."""


@dataclass(frozen=True)
class Existing:
    """A dataset that is on Kaggle.

    Attributes
    ----------
    version : int
        Its newest version.
    private : bool
        Whether only its owner sees it.
    """

    version: int
    private: bool


@dataclass(frozen=True)
class Owned:
    """A dataset of the owner of the key; equal to a later look where nothing has changed.

    Attributes
    ----------
    reference, title : str
        OWNER/SLUG, and its name.
    version : int
        Its newest version, counted from 1.
    private : bool
        Whether only its owner sees it.
    notebooks : int
        Notebooks that read it, as Kaggle counts them.
    updated : str
        When it was last changed.
    """

    reference: str
    title: str
    version: int
    private: bool
    notebooks: int
    updated: str

    @property
    def url(self) -> str:
        """Its page."""
        return f"https://www.kaggle.com/datasets/{self.reference}"


class KaggleDatasets:
    """Kaggle's datasets, as the owner of a key.

    Raises
    ------
    CellflowError
        If the client is not installed, or there is no key that Kaggle accepts.
    """

    def __init__(self) -> None:
        self._api: Any = None
        with self._quiet("sign in"):
            try:
                from kaggle.api.kaggle_api_extended import KaggleApi
            except ImportError:
                text = f"This needs Kaggle's client. Install it with: {INSTALL}"
                raise CellflowError(text) from None
            api = KaggleApi()
            try:
                api.authenticate()
            except SystemExit:
                raise CellflowError(NO_KEY) from None
            self._api = api

    @property
    def user(self) -> str:
        """Who the key belongs to."""
        return str(self._api.get_config_value(self._api.CONFIG_NAME_USER) or "")

    def find(self, reference: str) -> Existing | None:
        """A dataset by OWNER/SLUG, None where there is none that the key may see.

        Raises
        ------
        CellflowError
            If Kaggle cannot be asked.
        """
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest
        from requests import HTTPError

        request = ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = reference.split("/")
        with self._quiet(f"look up {reference}"):
            try:
                with self._api.build_kaggle_client() as client:
                    ask = self._api.with_retry(client.datasets.dataset_api_client.get_dataset)
                    found = ask(request)
            except HTTPError as error:
                if error.response is not None and error.response.status_code in (403, 404):
                    return None  # Kaggle forbids what is not there
                raise
        return Existing(int(found.current_version_number or 1), bool(found.is_private))

    def create(self, folder: Path, reference: str, *, title: str, public: bool) -> str:
        """Make a dataset of a folder, its folders included; returns its address.

        Parameters
        ----------
        folder : Path
            What goes in; the client's own dataset-metadata.json is written into it.
        reference : str
            OWNER/SLUG.
        title : str
            6 to 50 characters.
        public : bool
            Whether everybody may see it.

        Raises
        ------
        CellflowError
            If Kaggle refuses, or any file cannot be sent; then no dataset is made.
        """
        self._describe(folder, reference, title)
        with self._quiet(f"create {reference}"):
            answer = self._api.dataset_create_new(
                str(folder), public=public, quiet=_is_silent(), dir_mode="zip"
            )
        return self._address(answer, reference)

    def add_version(self, folder: Path, reference: str, *, title: str, message: str) -> str:
        """Make a folder the newest version of a dataset; returns its address. Raises as `create`."""
        self._describe(folder, reference, title)
        with self._quiet(f"add a version to {reference}"):
            answer = self._api.dataset_create_version(
                str(folder), message, quiet=_is_silent(), dir_mode="zip"
            )
        return self._address(answer, reference)

    def owned(self) -> list[Owned]:
        """All datasets of the owner of the key, by their references. Raises as `find`."""
        found: dict[str, Owned] = {}
        with self._quiet("list your datasets"):
            for page in range(1, _MOST_PAGES):
                listed = (
                    self._api.with_retry(self._api.dataset_list, max_retries=3)(
                        mine=True, page=page
                    )
                    or []
                )
                new = [self._owned(item) for item in listed if item.ref not in found]
                if not new:
                    break
                found.update((item.reference, item) for item in new)
        mine = f"{self.user}/"
        return [found[name] for name in sorted(found) if name.startswith(mine)]

    def read_text(self, reference: str, version: int, name: str) -> str | None:
        """A small text file of a version of a dataset, None where it is not there or not small. Raises as `find`."""
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest
        from requests import HTTPError

        request = ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = reference.split("/")
        request.dataset_version_number, request.file_name = version, name
        with self._quiet(f"read {name} of {reference}"):
            try:
                with self._api.build_kaggle_client() as client:
                    download = client.datasets.dataset_api_client.download_dataset
                    ask = self._api.with_retry(download, max_retries=3)
                    content = b""
                    for part in ask(request).iter_content(2**16):
                        content += part
                        if len(content) > _MOST_BYTES:
                            return None
            except HTTPError as error:
                if error.response is not None and error.response.status_code in (403, 404):
                    return None
                raise
        return content.decode("utf-8", "replace")

    def delete(self, reference: str) -> None:
        """Delete a dataset with all its versions; Kaggle's client cannot delete a single one. Raises as `find`."""
        with self._quiet(f"delete {reference}"):
            try:
                from kagglesdk.datasets.types.dataset_api_service import ApiDeleteDatasetRequest
            except ImportError:
                raise CellflowError(
                    f"The installed client of Kaggle cannot delete {reference}. Install a newer one with: "
                    "pip install --upgrade kaggle"
                ) from None
            request = ApiDeleteDatasetRequest()
            request.owner_slug, request.dataset_slug = reference.split("/")
            with self._api.build_kaggle_client() as client:
                # not the client's dataset_delete, which does not look at the answer
                answer = client.datasets.dataset_api_client.delete_dataset(request)
            if answer.error:
                raise CellflowError(
                    f"Kaggle did not delete {reference}. It says: {self._clean(answer.error)}"
                )

    def _owned(self, item: Any) -> Owned:
        version = item.current_version_number
        if not version:  # not every list has it
            existing = self.find(item.ref)
            version = 1 if existing is None else existing.version
        return Owned(
            reference=str(item.ref),
            title=str(item.title),
            version=int(version),
            private=bool(item.is_private),
            notebooks=int(item.kernel_count or 0),
            updated=str(item.last_updated),
        )

    def _describe(self, folder: Path, reference: str, title: str) -> None:
        facts = {"id": reference, "title": title, "licenses": [{"name": _LICENSE}]}
        write_json(folder / self._api.DATASET_METADATA_FILE, facts)

    def _address(self, answer: Any, reference: str) -> str:
        if answer is None or answer.error or answer.status.lower() != "ok":
            said = getattr(answer, "error", "") or "nothing"
            raise CellflowError(f"Kaggle did not take {reference}. It says: {self._clean(said)}")
        return str(answer.url) or f"https://www.kaggle.com/datasets/{reference}"

    @contextlib.contextmanager
    def _quiet(self, what: str) -> Iterator[None]:
        """Keep what the client prints for the log, and turn what it raises into one error."""
        said = io.StringIO()
        errors = said if _is_silent() else sys.stderr
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
                yield
        except CellflowError:
            raise
        except (Exception, SystemExit) as error:
            if getattr(getattr(error, "response", None), "status_code", None) == 401:
                raise CellflowError(NO_KEY) from None
            raise CellflowError(
                f"Could not {what} on Kaggle: {self._clean(str(error)) or type(error).__name__}. "
                "See to it and repeat the command."
            ) from None
        finally:
            if said.getvalue().strip():
                _log.debug("Kaggle's client says: %s", self._clean(said.getvalue().strip()))

    def _clean(self, text: str) -> str:
        """A text without keys."""
        known = [os.environ.get(name) for name in _SECRETS]
        if self._api is not None:
            names = (self._api.CONFIG_NAME_KEY, self._api.CONFIG_NAME_TOKEN)
            known += [self._api.get_config_value(name) for name in names]
        for secret in filter(None, known):
            text = text.replace(secret, "***")
        return text


def _is_silent() -> bool:
    """Whether there is no terminal to show the client's progress bars on."""
    return not sys.stderr.isatty()


def user_without_client() -> str | None:
    """Owner of the key, as far as the environment and the client's file tell without asking Kaggle."""
    name = os.environ.get("KAGGLE_USERNAME")
    folder = os.environ.get("KAGGLE_CONFIG_DIR")
    places = [Path(folder)] if folder else [Path.home() / ".kaggle", Path.home() / ".config/kaggle"]
    for place in places:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            name = name or str(json.loads((place / "kaggle.json").read_text())["username"])
    return name
