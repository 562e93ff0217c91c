"""Pages opened from disk in a real, headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

HERE = Path(__file__).parent
SIZES = {"laptop": (1280, 800), "phone": (390, 844)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    program = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not program:
        pytest.skip("needs chromium, which `make test-browser` installs")
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install playwright"
    )
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a file as a person does; what the page complains of, or asks of a network, fails the test.

    ``open_page(path, size="phone", scheme="dark", at="#place")`` returns playwright's page.
    """
    contexts, complaints = [], []

    def opened(
        path: Path,
        *,
        size: Literal["laptop", "phone"] = "laptop",
        scheme: Literal["light", "dark"] = "light",
        at: str = "",
    ) -> Any:
        width, height = SIZES[size]
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith(("file:", "data:", "blob:")) or complaints.append(asked.url)
            ),
        )
        page.on("requestfailed", lambda asked: complaints.append(f"failed: {asked.url[:200]}"))
        page.goto(path.resolve().as_uri() + at)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def check_access() -> Callable[[Any], None]:
    """What the accessibility checker axe finds wrong (contrast, labels, order of headings ...) fails the test."""
    checker = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def check(page: Any) -> None:
        found = checker.run(page)
        assert found.violations_count == 0, found.generate_report()

    return check
