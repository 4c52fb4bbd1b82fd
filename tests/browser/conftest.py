"""A real browser in front of the real web UI in front of a real model server with a really trained model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import without_settings

# Without the sandbox, because containers run as root; without all that calls home at the start.
BROWSER_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Strokes = dict[str, list[list[tuple[float, float]]]]
StartServer = Callable[..., str]
OpenPage = Callable[..., Page]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that takes the pictures for the documentation."""
    parser.addoption("--screenshots", metavar="DIR", help="write pictures of the web UI to this directory")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's chromium or an installed Chrome, else the browser that Playwright has downloaded.

    It ends with the tests of this folder: Playwright's event loop would get in the way of others'.
    """
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(found, None), args=list(BROWSER_FLAGS))
        yield browser
        browser.close()


@contextmanager
def running(*words: str) -> Iterator[str]:
    """Run a fairway server on a free port and give its address, HOST:PORT, once it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fairway", *words], env=without_settings(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line)
            if match := re.search(r" at http://([^/]+)/", line):
                # Read on, or the server stops when the pipe is full.
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield match[1]
                break
        else:
            pytest.fail(f"fairway {' '.join(words)} did not start: {''.join(said)}")
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="package")
def served_model(trained_export: Path) -> Iterator[str]:
    """The address of a model server with a really trained model."""
    with running(
        "serve", "--port", "0", "--rest_api_port", "0", "--model_base_path", str(trained_export)
    ) as address:
        yield address


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start fairway servers that end with the test."""
    with ExitStack() as stack:
        yield lambda *words: stack.enter_context(running(*words))


@pytest.fixture(scope="package")
def web_address(served_model: str, trained_export: Path, data_flags: tuple[str, ...]) -> Iterator[str]:
    """The address of a web UI before the served model."""
    model, export = str(trained_export.parent / "model"), str(trained_export)
    words = ("--server", served_model, *data_flags, "--model-dir", model, "--export-dir", export)
    with running("web", "--port", "0", *words) as address:
        yield address


@pytest.fixture(scope="session")
def strokes() -> Strokes:
    """Digit -> its strokes as lines of points in 0..1, drawn by hand once."""
    return dict(json.loads((Path(__file__).parent / "strokes.json").read_text()))


@pytest.fixture
def open_page(browser: Browser, start_server: StartServer) -> Iterator[OpenPage]:
    """Open an address in a fresh browser window; what leaves the origin or fails there fails the test.

    It needs `start_server` only to be closed first: a page whose server is gone complains.
    """
    problems: list[str] = []
    with ExitStack() as stack:

        def open_one(url: str, *, expect_errors: bool = False, **options: Any) -> Page:
            page = stack.enter_context(browser.new_context(**options)).new_page()
            origin = urlsplit(url).netloc

            def check(request: Any) -> None:
                target = urlsplit(request.url)
                if target.scheme in ("http", "https", "ws", "wss") and target.netloc != origin:
                    problems.append(f"request to {request.url}")

            # From the start: switched on only when a dialogue is expected, it may come too late to catch it.
            page.on("filechooser", lambda chooser: None)
            page.on("request", check)
            page.on("pageerror", lambda error: problems.append(f"error in the page: {error}"))
            if not expect_errors:
                page.on("console", lambda message: problems.append(f"console: {message.text}"))
            page.goto(url)
            return page

        yield open_one
    assert not problems


@pytest.fixture
def page(open_page: OpenPage, web_address: str) -> Page:
    """The web UI in a window of 1280 by 800."""
    return open_page(f"http://{web_address}/", viewport={"width": 1280, "height": 800})


@pytest.fixture
def draw(strokes: Strokes) -> Callable[[Page, str], None]:
    """Draw a digit with the mouse and wait for the answer to all of it."""

    def draw_digit(page: Page, digit: str) -> None:
        page.locator("#canvas").scroll_into_view_if_needed()
        box = page.locator("#canvas").bounding_box()
        assert box
        for stroke in strokes[digit]:
            points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
            page.mouse.move(*points[0])
            page.mouse.down()
            for point in points[1:]:
                page.mouse.move(*point, steps=3)
            page.mouse.up()
        expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")

    return draw_digit
