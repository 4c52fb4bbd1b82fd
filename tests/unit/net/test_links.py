"""Links are shown once they answer."""

from __future__ import annotations

import asyncio

import httpx

from fairway.net.links import Link, ready_text, until_answering


def test_a_link_is_asked_until_it_answers_200() -> None:
    codes = [503, None, 200]

    def answer(request: httpx.Request) -> httpx.Response:
        if (code := codes.pop(0)) is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(code)

    async def wait() -> Link:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            return await until_answering(client, Link("Page", "http://h/", "http://h/healthz"), 0.0)

    assert asyncio.run(wait()).title == "Page"
    assert codes == []


def test_what_speaks_no_http_is_not_asked() -> None:
    async def wait() -> Link:
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda request: 1 / 0)) as client:  # type: ignore[arg-type]
            return await until_answering(client, Link("gRPC", "h:9000", ""), 0.0)

    assert asyncio.run(wait()).url == "h:9000"


def test_links_stand_below_each_other() -> None:
    links = [Link("A page", "http://a/", ""), Link("B", "http://b/", "")]
    assert ready_text(links, "the end") == "\nready:\n  A page  http://a/\n  B       http://b/\n  the end\n"
