"""The web UI on a fake model server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from fairway.config import WebSettings
from fairway.web.app import build_app
from tests.fake_server import FakeServer


@pytest.fixture
def fake() -> FakeServer:
    """A model server with version 7 of mnist."""
    return FakeServer()


class Ui:
    """The web UI, asked from tests that are not asynchronous."""

    def __init__(self, portal: BlockingPortal, settings: WebSettings, fake: FakeServer) -> None:
        self._portal = portal
        app = build_app(settings, httpx.MockTransport(fake))
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://ui", follow_redirects=True
        )

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._portal.call(lambda: self._http.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


OpenUi = Callable[..., Ui]


@pytest.fixture
def open_ui(fake: FakeServer, tmp_path: Path) -> Iterator[OpenUi]:
    """Open the web UI with some settings, on empty directories and the fake model server."""
    directories = {"model_dir": str(tmp_path / "model"), "export_dir": str(tmp_path / "export")}
    with start_blocking_portal() as portal:
        yield lambda **settings: Ui(portal, WebSettings(**directories | settings), fake)


@pytest.fixture
def ui(open_ui: OpenUi) -> Ui:
    """The web UI with default settings."""
    return open_ui()
