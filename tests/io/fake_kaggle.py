"""A small Kaggle on this machine: what its official client needs to make, list, read and delete datasets.

The client's paths and JSON are those of kaggle 2.2.5: every call is a POST of JSON to
``/v1/SERVICE/METHOD``, files are PUT to an address that a call has given. Archives of folders are
unpacked as Kaggle does, and `FakeKaggle.mount` lays datasets out as ``/kaggle/input``.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

USER, KEY, TOKEN = "ada", "0123456789abcdef-the-key", "KGAT_the-token"


@dataclass
class Version:
    """One version of a dataset: files by name, folders unpacked."""

    files: dict[str, bytes]
    notes: str = ""


@dataclass
class FakeDataset:
    title: str
    private: bool
    license: str
    versions: list[Version] = field(default_factory=list)
    notebooks: int = 0
    updated: str = "2026-01-01T00:00:00Z"


class FakeKaggle:
    """The server, in a thread of its own while the context lasts.

    Attributes
    ----------
    datasets : dict of str to FakeDataset
        By OWNER/SLUG.
    calls : list of str
        Methods called, in order; PUT for a file.
    failures : dict of str to list of int
        Status codes that the next calls of a method answer with.
    refusal : str
        What `CreateDataset`, `CreateDatasetVersion` and `DeleteDataset` say instead of doing it.
    page : int
        Datasets on a page.
    lists_versions : bool
        Whether a list says how many versions there are.
    before : dict of str to callable
        What happens on the server just before a method is answered.
    """

    def __init__(self) -> None:
        self.datasets: dict[str, FakeDataset] = {}
        self.calls: list[str] = []
        self.failures: dict[str, list[int]] = {}
        self.refusal = ""
        self.page = 2
        self.lists_versions = True
        self.before: dict[str, Any] = {}
        self._blobs: dict[str, tuple[str, bytes]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeKaggle:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def point_client(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """Send the official client here, with a key from the environment and an empty home."""
        for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_ENVIRONMENT", "KAGGLE_KERNEL_RUN_TYPE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        home.mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home))
        monkeypatch.setenv("KAGGLE_USERNAME", USER)
        monkeypatch.setenv("KAGGLE_KEY", KEY)
        from kagglesdk import kaggle_env

        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, self.url)
        from kaggle.api.kaggle_api_extended import KaggleApi  # reads its folder when imported

        monkeypatch.setattr(KaggleApi, "config", str(home / "kaggle.json"))

    def mount(self, folder: Path) -> Path:
        """Lay the newest version of every dataset out as Kaggle does, by slug."""
        for reference, dataset in self.datasets.items():
            for name, content in dataset.versions[-1].files.items():
                path = folder / reference.split("/")[1] / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return folder

    # ---- what the client calls -----------------------------------------------------------------

    def answer(self, method: str, body: dict[str, Any]) -> tuple[int, dict[str, Any] | bytes]:
        self.calls.append(method)
        if method in self.before:
            self.before[method]()
        if self.failures.get(method):
            code = self.failures[method].pop(0)
            return code, {"code": code, "message": f"{method} failed on purpose"}
        return getattr(self, f"_{method}")(body)

    def _IntrospectToken(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        good = body.get("token") == TOKEN
        return 200, {"active": good, **({"username": USER} if good else {})}

    def _GetDataset(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        reference = f"{body['ownerSlug']}/{body['datasetSlug']}"
        if reference not in self.datasets:
            return 403, {"code": 403, "message": "Permission 'datasets.get' was denied"}
        found = self.datasets[reference]
        versions = len(found.versions)
        return 200, {
            "ref": reference,
            "title": found.title,
            "isPrivate": found.private,
            "currentVersionNumber": versions,
        }

    def _GetDatasetStatus(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        code, found = self._GetDataset(body)
        return (code, {"status": "READY"}) if code == 200 else (code, found)

    def _ListDatasets(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert body["group"] == "DATASET_SELECTION_GROUP_MY", body
        start = (body.get("page", 1) - 1) * self.page
        listed = [
            {
                "ref": reference,
                "title": found.title,
                "isPrivate": found.private,
                "currentVersionNumber": len(found.versions) if self.lists_versions else 0,
                "kernelCount": found.notebooks,
                "lastUpdated": found.updated,
            }
            for reference, found in list(self.datasets.items())[start : start + self.page]
        ]
        return 200, {"datasets": listed}

    def _DownloadDataset(self, body: dict[str, Any]) -> tuple[int, dict[str, Any] | bytes]:
        found = self.datasets[f"{body['ownerSlug']}/{body['datasetSlug']}"]
        files = found.versions[body["datasetVersionNumber"] - 1].files
        if body["fileName"] not in files:
            return 404, {"code": 404, "message": "Not found"}
        return 200, files[body["fileName"]]

    def _DeleteDataset(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.refusal:
            return 200, {"error": self.refusal}
        del self.datasets[f"{body['ownerSlug']}/{body['datasetSlug']}"]
        return 200, {"error": ""}

    def _StartBlobUpload(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert body["type"] == "DATASET"
        token = f"blob-{len(self._blobs)}"
        self._blobs[token] = (body["name"], b"")
        return 200, {"token": token, "createUrl": f"{self.url}/upload/{token}"}

    def _CreateDataset(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.refusal:
            return 200, {"status": "error", "error": self.refusal}
        reference = f"{body['ownerSlug']}/{body['slug']}"
        self.datasets[reference] = FakeDataset(
            body["title"], body.get("isPrivate", False), body["licenseName"]
        )
        return self._add(reference, body)

    def _CreateDatasetVersion(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.refusal:
            return 200, {"status": "error", "error": self.refusal}
        return self._add(f"{body['ownerSlug']}/{body['datasetSlug']}", body["body"])

    def _add(self, reference: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        files: dict[str, bytes] = {}
        for item in body["files"]:
            name, content = self._blobs[item["token"]]
            files.update(_unpacked(name, content))
        self.datasets[reference].versions.append(Version(files, body.get("versionNotes", "")))
        url = f"https://www.kaggle.com/datasets/{reference}"
        return 200, {"ref": f"/{reference}", "url": url, "status": "ok", "error": ""}

    def take(self, token: str, content: bytes) -> int:
        self.calls.append("PUT")
        if self.failures.get("PUT"):
            return self.failures["PUT"].pop(0)
        self._blobs[token] = (self._blobs[token][0], content)
        return 200


def _unpacked(name: str, content: bytes) -> dict[str, bytes]:
    """Files of an upload: an archive becomes a folder of its name."""
    if not name.endswith(".zip"):
        return {name: content}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {
            f"{name[:-4]}/{item.filename}": archive.read(item)
            for item in archive.infolist()
            if not item.is_dir()
        }


def _handler(kaggle: FakeKaggle) -> type[BaseHTTPRequestHandler]:
    basic = "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()
    known = (basic, f"Bearer {TOKEN}")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            _, version, _service, method = self.path.split("/")
            assert version == "v1"
            allowed = method == "IntrospectToken" or self.headers.get("Authorization") in known
            refused = 401, {"code": 401, "message": "Unauthenticated"}
            code, answer = kaggle.answer(method, body) if allowed else refused
            is_file = isinstance(answer, bytes)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self._send(code, content, "application/octet-stream" if is_file else "application/json")

        def do_PUT(self) -> None:
            length = self.headers.get("Content-Length")
            if self.headers.get("Content-Range", "").startswith("bytes */"):
                self._send(308, b"")  # asks how much is here: nothing
                return
            content = self.rfile.read(int(length)) if length else self._chunks()
            self._send(kaggle.take(self.path.rpartition("/")[2], content), b"{}")

        def _chunks(self) -> bytes:
            """A body that comes in chunks."""
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _send(self, code: int, content: bytes, kind: str = "application/json") -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
