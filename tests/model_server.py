"""A real server of files on this machine, as Cellpose's one, that can also fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

__all__ = ["ModelServer", "serve"]


@dataclass
class ModelServer:
    """Files by name, and how they come.

    Attributes
    ----------
    url : str
        Its address.
    files : dict of str to bytes
        What there is.
    missing : int
        Answer where there is nothing; that of Cellpose's server is 500.
    cut : int or None
        The connection ends after so many bytes.
    sized : bool
        Whether the answer says how many bytes will come.
    go_on : threading.Event
        While it is not set, nothing is answered; or no more than `pause` bytes of it.
    pause : int or None
    asked : list of str
        Names that were asked for.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    missing: int = 500
    cut: int | None = None
    sized: bool = True
    go_on: threading.Event = field(default_factory=threading.Event)
    pause: int | None = None
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """Serve to this process and its children, whose working folder and model folder lie in `folder`."""
    patch.setenv("CELLPOSE_LOCAL_MODELS_PATH", str(folder / "models"))
    patch.chdir(folder)
    state = ModelServer()
    state.go_on.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/models/")
            state.asked.append(name)
            if state.pause is None:
                state.go_on.wait()
            content = state.files.get(name)
            if content is None:
                self.send_error(state.missing)
                return
            self.send_response(200)
            if state.sized:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(ConnectionError):  # who asked may be gone
                if state.pause is not None:
                    self.wfile.write(content[: state.pause])
                    state.go_on.wait()
                self.wfile.write(content[state.pause : state.cut])

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/models"
        patch.setenv("CELLFLOW_MODEL_SERVER", state.url)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            state.go_on.set()
            server.shutdown()
            thread.join()
