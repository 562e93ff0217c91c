"""A small wandb on this machine: what its Api asks for to list, read and delete runs.

The queries are those of wandb 0.31: every call is a POST of GraphQL to ``/graphql``, told apart by the name of
the operation. `FakeWandb.add` takes a run as the tracker has recorded it.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

USER, KEY = "ada", "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeRun:
    """A run: fields as GraphQL has them, config plain, a row of history per epoch."""

    id: str
    fields: dict[str, Any]
    config: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict)
    epochs: list[float] = field(default_factory=list)

    def node(self) -> dict[str, Any]:
        config = {key: {"value": value, "desc": None} for key, value in self.config.items()}
        empty = dict.fromkeys(("sweepName", "commit", "description", "notes", "historyKeys"))
        return {
            **empty, "tags": [], "readOnly": False, "projectId": "5", "systemMetrics": "{}",
            "id": storage_id(self.id), "name": self.id, "config": json.dumps(config),
            "summaryMetrics": json.dumps(self.summary), "historyLineCount": len(self.epochs),
            **self.fields,
        }  # fmt: skip


def storage_id(id: str) -> str:
    return base64.b64encode(f"Run:v1:{id}".encode()).decode()


class FakeWandb:
    """The server, in a thread of its own while the context lasts.

    Attributes
    ----------
    projects : dict of str to dict of str to FakeRun
        Runs by id, by ENTITY/PROJECT.
    calls : list of str
        Operations asked for, in order.
    deleted : list of (str, bool)
        Ids of deleted runs, and whether their artifacts were to go too.
    page : int
        Runs on a page.
    failing : dict of str to str
        What an operation answers with, as an error.
    before : dict of str to callable
        What happens on the server just before an operation is answered.
    """

    def __init__(self) -> None:
        self.projects: dict[str, dict[str, FakeRun]] = {}
        self.calls: list[str] = []
        self.deleted: list[tuple[str, bool]] = []
        self.page = 2
        self.failing: dict[str, str] = {}
        self.before: dict[str, Any] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeWandb:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def point_client(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """Send wandb here, with a key from the environment and an empty home."""
        home.mkdir(parents=True, exist_ok=True)
        for name in ("WANDB_MODE", "WANDB_ENTITY", "WANDB_PROJECT", "WANDB_DIR", "WANDB_SERVICE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("NETRC", str(home / "netrc"))
        monkeypatch.setenv("WANDB_BASE_URL", self.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)

    def add(self, project: str, id: str, name: str, **given: Any) -> FakeRun:
        """A run of the owner of the key, finished; `given` replaces fields of the run or of `FakeRun`."""
        group, _, fold = name.partition(" fold ")
        parts = {key: given.pop(key) for key in ("config", "summary", "epochs") if key in given}
        fields = {
            "displayName": name, "group": group, "jobType": "fold" if fold else "cv", "state": "finished",
            "createdAt": "2026-01-01T00:00:00Z", "heartbeatAt": "2026-01-01T01:00:00Z",
            "user": {"name": "Ada", "username": USER}, **given,
        }  # fmt: skip
        run = FakeRun(id, fields, **parts)
        self.projects.setdefault(project, {})[id] = run
        return run

    def ids(self) -> set[str]:
        return {id for runs in self.projects.values() for id in runs}

    # ---- what the client calls -----------------------------------------------------------------

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        found = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        assert found is not None, query
        name = found[1]
        self.calls.append(name)
        if name in self.before:
            self.before[name]()
        if name in self.failing:
            return {"errors": [{"message": self.failing[name]}]}
        return {"data": getattr(self, f"_{name}")(variables)}

    def _Viewer(self, variables: dict[str, Any]) -> dict[str, Any]:
        empty: dict[str, Any] = {"edges": []}
        return {"viewer": {
            "id": "VXNlcjox", "username": USER, "entity": USER, "name": "Ada", "email": "ada@example.com",
            "admin": False, "flags": "{}", "deletedAt": None, "teams": empty, "apiKeys": empty,
        }}  # fmt: skip

    _GetViewer = _GetDefaultEntity = _Viewer

    def _Runs(self, variables: dict[str, Any]) -> dict[str, Any]:
        project = self.projects.get(f"{variables['entity']}/{variables['project']}")
        if project is None:
            return {"project": None}
        kinds = json.loads(variables["filters"])["jobType"]["$in"]
        runs = [run for run in project.values() if run.fields["jobType"] in kinds]
        runs.sort(key=lambda run: run.fields["createdAt"])
        start = int(variables["cursor"] or 0)
        edges = [
            {"node": run.node(), "cursor": str(start + place + 1)}
            for place, run in enumerate(runs[start : start + self.page])
        ]
        more = start + self.page < len(runs)
        last = str(start + len(edges))
        return {"project": {
            "internalId": "5", "runCount": len(runs), "readOnly": False,
            "runs": {"edges": edges, "pageInfo": {"endCursor": last, "hasNextPage": more}},
        }}  # fmt: skip

    def _Run(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self._found(variables)
        return {"project": {"run": None if run is None else run.node()}}

    def _RunSampledHistory(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self._found(variables)
        assert run is not None
        (spec,) = map(json.loads, variables["specs"])
        assert spec["keys"] == ["_step", "epoch"]
        rows = [{"_step": step, "epoch": epoch} for step, epoch in enumerate(run.epochs)]
        return {"project": {"run": {"sampledHistory": [rows[: spec["samples"]]]}}}

    def _DeleteRun(self, variables: dict[str, Any]) -> dict[str, Any]:
        for runs in self.projects.values():
            for id in list(runs):
                if storage_id(id) == variables["id"]:
                    del runs[id]
                    self.deleted.append((id, bool(variables.get("deleteArtifacts"))))
                    return {"deleteRun": {"clientMutationId": None}}
        raise AssertionError(variables)

    def _found(self, variables: dict[str, Any]) -> FakeRun | None:
        project = self.projects.get(f"{variables['entity']}/{variables['project']}", {})
        return project.get(variables["name"])


def _handler(wandb: FakeWandb) -> type[BaseHTTPRequestHandler]:
    allowed = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            if self.path != "/graphql":  # wandb counts how it is used, there too
                self._send(404, {})
            elif self.headers.get("Authorization") != allowed:
                self._send(401, {"errors": [{"message": "user is not logged in"}]})
            else:
                self._send(200, wandb.answer(body["query"], body.get("variables") or {}))

        def _send(self, code: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
