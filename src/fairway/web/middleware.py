"""What holds for every request: the path prefix, the origin of a POST, the security headers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairway.errors import UsageError


def clean_prefix(prefix: str) -> str:
    """Return a path prefix as `/x/y`, or the empty string for none.

    Raises:
        UsageError: it is not a plain path.
    """
    parts = [part for part in prefix.split("/") if part]
    if any(part in (".", "..") or not re.fullmatch(r"[A-Za-z0-9._~-]+", part) for part in parts):
        raise UsageError(
            f"path_prefix is {prefix!r}, but must be a path of letters, digits, '.', '_', '~' and '-'",
            hint="Set it with --path-prefix, as /ui.",
        )
    return "".join(f"/{part}" for part in parts)


class PathPrefix:
    """Answers below a prefix as well as without: one proxy strips it, another passes it on.

    Args:
        app: What answers.
        prefix: As `clean_prefix` returns it.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with its path shortened; without its final slash the prefix is redirected."""
        if scope["type"] == "http" and self._prefix:
            path: str = scope["path"]
            if path == self._prefix:
                # Relative: a proxy in front may have stripped yet another prefix.
                redirect = RedirectResponse(f"{self._prefix.rpartition('/')[2]}/", status_code=308)
                return await redirect(scope, receive, send)
            if path.startswith(f"{self._prefix}/"):
                scope = {**scope, "path": path.removeprefix(self._prefix), "raw_path": None}
        return await self._app(scope, receive, send)


class SameOrigin:
    """Refuses what another site's page makes a visitor's browser send.

    Args:
        app: What answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, unless the browser says that it comes from elsewhere."""
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            # Browsers set it and pages cannot; what is no browser does not send it.
            site = Headers(scope=scope).get("sec-fetch-site", "none")
            if site not in ("same-origin", "none"):
                words = {"error": "this request comes from another site", "hint": "Open the page itself."}
                return await JSONResponse(words, 403)(scope, receive, send)
        return await self._app(scope, receive, send)


class ResponseHeaders:
    """Adds headers to every response that does not have them.

    Args:
        app: What answers.
        headers: Names and values.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app, self._headers = app, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
