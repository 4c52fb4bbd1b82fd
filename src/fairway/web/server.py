"""The web UI as a process."""

from __future__ import annotations

import logging

from fairway.config import WebSettings
from fairway.net.asgi import run_app
from fairway.net.ports import listen, reachable
from fairway.web.app import build_app

_DRAIN_S = 5

log = logging.getLogger(__name__)


def run(settings: WebSettings) -> None:
    """Show the web UI until SIGTERM or Ctrl-C.

    Raises:
        UsageError: the server's address, a directory's URI or the path prefix is not one.
        FairwayError: the port cannot be had.
    """
    app = build_app(settings)
    with listen(settings.host, settings.port, "--port") as listener:
        url = f"http://{reachable(settings.host)}:{listener.getsockname()[1]}/"
        run_app(app, listener, lambda: log.info("web UI at %s", url), drain_s=_DRAIN_S, lifespan="on")
