"""`fairway web`."""

from __future__ import annotations

from fairway.config import WebSettings


def web(settings: WebSettings = WebSettings()) -> None:  # noqa: B008 - frozen
    """Show the web UI: draw a digit and see a model server recognise it.

    The model server need not run yet; the page says what it waits for. Only this command chooses the
    server that is asked, never a visitor. It works under any path: a proxy that strips its path needs
    no setting, one that passes it on unchanged needs --path-prefix.

    For example:

        fairway web
        fairway web --server mnist-service:8500 --host 0.0.0.0 --path-prefix /ui

    See also: fairway up, fairway serve
    """
    from fairway.web.server import run

    run(settings)
