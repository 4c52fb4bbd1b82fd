"""Pages and APIs that are started: shown to the user once they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Link:
    """A page or API.

    Attributes:
        title: What it is for.
        url: What the user opens.
        ready: Answers 200 once it works; empty for what does not speak HTTP.
    """

    title: str
    url: str
    ready: str


def new_client() -> httpx.AsyncClient:
    """Return the client for `until_answering`: what listens on this machine is behind no proxy."""
    return httpx.AsyncClient(timeout=5, trust_env=False)


async def until_answering(client: httpx.AsyncClient, link: Link, poll_s: float) -> Link:
    """Wait until a link answers, and return it."""
    while link.ready:
        with suppress(httpx.HTTPError):
            if (await client.get(link.ready)).status_code == httpx.codes.OK:
                break
        await asyncio.sleep(poll_s)
    return link


def ready_text(links: Sequence[Link], ending: str) -> str:
    """Return what is shown when all links answer.

    Args:
        links: They.
        ending: How it all ends, as the last line.
    """
    width = max(len(link.title) for link in links)
    lines = [f"  {link.title:<{width}}  {link.url}" for link in links]
    return "\n".join(("", "ready:", *lines, f"  {ending}", ""))
