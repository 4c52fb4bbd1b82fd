"""The page around the drawing: where it works, what it says, how it looks."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

OpenPage = Callable[..., Page]
Draw = Callable[[Page, str], None]
StartServer = Callable[..., str]

SIZES = {"desktop": (1280, 800), "tablet": (768, 1024), "phone": (360, 780)}


@contextmanager
def proxy(target: str, prefix: str, *, strip: bool) -> Iterator[str]:
    """Show a server under a prefix; give the address of the proxy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(prefix):
                with suppress(ConnectionError):
                    self.send_error(404)
                return
            path = self.path.removeprefix(prefix) if strip else self.path
            path = path if path.startswith("/") else f"/{path}"
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with closing(http.client.HTTPConnection(target)) as connection, suppress(ConnectionError):
                connection.request(self.command, path, body, dict(self.headers))
                response = connection.getresponse()
                content = response.read()
                self.send_response(response.status)
                for name, value in response.getheaders():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the base class's name

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("path", "shown"),
    [("/deep/ui/", "/deep/ui/"), ("/deep/ui", "/deep/ui/"), ("/deep/ui?a=b#c", "/deep/ui/?a=b#c")],
)
def test_works_behind_a_proxy_that_strips_its_prefix(
    open_page: OpenPage, web_address: str, draw: Draw, path: str, shown: str
) -> None:
    with proxy(web_address, "/deep/ui", strip=True) as address:
        # Without the final slash the browser looks for the style sheet in the wrong place, once.
        page = open_page(f"http://{address}{path}", expect_errors=path != shown)
        draw(page, "1")
        expect(page.locator("#digit")).to_have_text("1")
        assert page.url == f"http://{address}{shown}"
        page.goto("about:blank")


@pytest.mark.parametrize("path", ["/deep/ui/", "/deep/ui"])
def test_works_behind_a_proxy_that_passes_its_prefix_on(
    open_page: OpenPage, served_model: str, start_server: StartServer, draw: Draw, path: str
) -> None:
    web = start_server("web", "--port", "0", "--server", served_model, "--path-prefix", "/deep/ui")
    with proxy(web, "/deep/ui", strip=False) as address:
        page = open_page(f"http://{address}{path}")
        draw(page, "1")
        expect(page.locator("#digit")).to_have_text("1")
        page.goto("about:blank")


def test_a_server_that_is_down_is_explained_and_found_again(
    open_page: OpenPage, trained_export: Path, start_server: StartServer, draw: Draw
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    web = start_server(
        "web", "--port", "0", "--server", f"127.0.0.1:{port}", "--export-dir", str(trained_export)
    )
    page = open_page(f"http://{web}/", expect_errors=True)
    expect(page.locator("#notice-message")).to_have_text(
        f"Model server at 127.0.0.1:{port} does not answer: nothing listens there."
    )
    expect(page.locator("#notice-hint")).to_contain_text("Start one with: fairway serve")
    draw(page, "1")
    expect(page.get_by_role("alert")).to_contain_text("No answer yet")
    expect(page.locator("#digit")).to_have_text("?")
    start_server(
        "serve", "--port", "0", "--rest_api_port", str(port), "--model_base_path", str(trained_export)
    )
    expect(page.locator("#digit")).to_have_text("1", timeout=15_000)  # the drawing is asked about again
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#status-text")).to_have_text(re.compile(r"serving mnist version \d+"))


def test_a_training_is_followed_until_its_model_is_served(
    open_page: OpenPage, start_server: StartServer, tmp_path: Path
) -> None:
    model, export = tmp_path / "model", tmp_path / "export"
    model.mkdir()
    export.mkdir()
    (model / "config.json").write_text(json.dumps({"run": "r", "train_steps": 468, "model_type": "cnn"}))
    serve = start_server("serve", "--port", "0", "--rest_api_port", "0", "--model_base_path", str(export))
    web = start_server(
        "web", "--port", "0", "--server", serve, "--model-dir", str(model), "--export-dir", str(export)
    )
    page = open_page(f"http://{web}/")
    expect(page.locator("#notice-message")).to_have_text("No model yet: a training is starting.")
    with (model / "metrics.jsonl").open("w") as file:
        for step in range(20, 260, 20):
            row = {"time": time.time(), "step": step, "loss": 2 / step, "accuracy": 1 - 5 / step}
            file.write(json.dumps(row) + "\n")
    expect(page.locator("#notice-message")).to_have_text("No model yet: training, step 240 of 468, 97.9 %.")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "240")
    expect(page.get_by_role("img", name="Accuracy over training steps. step 240: 97.92")).to_be_visible()


def test_the_record_of_the_served_version_is_shown(page: Page, trained_export: Path) -> None:
    [version] = [path for path in trained_export.iterdir() if path.name.isdigit()]
    manifest = json.loads((version / "fairway.json").read_text())
    record = page.locator("#record")
    expect(record.locator(".figure")).to_have_text(f"{100 * manifest['metrics']['test_accuracy']:.2f}\u00a0%")
    expect(record).to_contain_text(manifest["dataset"]["test_name"])
    expect(record).to_contain_text(f"{manifest['dataset']['train_images']:,} images")
    expect(record).to_contain_text(version.name)
    chart = record.get_by_role("img", name=re.compile("Loss over training steps"))
    before = record.locator(".chart-value").nth(1).inner_text()
    chart.hover(position={"x": 120, "y": 50})
    expect(record.locator(".chart-value").nth(1)).not_to_have_text(before)


def test_without_the_export_directory_predictions_still_work(
    open_page: OpenPage, served_model: str, start_server: StartServer, draw: Draw, tmp_path: Path
) -> None:
    web = start_server("web", "--port", "0", "--server", served_model, "--export-dir", str(tmp_path / "none"))
    page = open_page(f"http://{web}/")
    draw(page, "1")
    expect(page.locator("#digit")).to_have_text("1")
    expect(page.locator("#record")).to_contain_text("No training record at hand")


def test_a_web_ui_that_is_gone_is_noticed(open_page: OpenPage, web_address: str) -> None:
    page = open_page(f"http://{web_address}/", expect_errors=True)
    expect(page.locator("#status")).to_have_attribute("data-state", "serving")
    page.route("**/api/**", lambda route: route.abort())
    expect(page.locator("#notice-message")).to_contain_text("This page’s own server does not answer")
    page.unroute("**/api/**")
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_wider_than_the_window(
    open_page: OpenPage, web_address: str, draw: Draw, width: int
) -> None:
    page = open_page(f"http://{web_address}/", viewport={"width": width, "height": 800})
    page.get_by_role("button", name="Test random image").click()
    draw(page, "8")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


# The smallest contrast of any text that is shown with what lies behind it, as WCAG 2 defines it.
LEAST_CONTRAST = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const texts = [...document.querySelectorAll("body *")]
    .filter((e) => e.checkVisibility({ visibilityProperty: true }) && hasText(e));
  return texts.map((e) => {
    const style = getComputedStyle(e);
    const colour = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [luminance(parse(colour)), luminance(behind(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)];
  }).sort((x, y) => x[0] - y[0])[0];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(open_page: OpenPage, web_address: str, draw: Draw, scheme: str) -> None:
    page = open_page(f"http://{web_address}/", color_scheme=scheme)
    luminance = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(luminance) > 380) == (scheme == "light")
    page.get_by_role("button", name="Test random image").click()
    draw(page, "8")
    contrast, text = page.evaluate(LEAST_CONTRAST)
    assert contrast >= 4.5, text


def test_the_keyboard_reaches_everything_and_sees_where_it_is(page: Page) -> None:
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        reached.append(focused.inner_text())
        assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert reached == ["Clear", "Upload picture", "Test random image"]


def test_roles_and_names(page: Page) -> None:
    expect(page.get_by_role("heading", level=1, name="Draw a digit")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^Drawing area"))).to_be_visible()
    expect(page.get_by_role("list", name="Probability of each digit").get_by_role("listitem")).to_have_count(
        10
    )
    expect(page.get_by_role("status").first).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("img:not([alt])").count() == 0


def test_motion_is_left_out_where_it_is_not_wanted(open_page: OpenPage, web_address: str) -> None:
    page = open_page(f"http://{web_address}/", reduced_motion="reduce")
    # In one go: a locator's elements may have been replaced by the time they are looked at.
    durations = page.evaluate(
        "[...document.querySelectorAll('body *')].map((e) => getComputedStyle(e).transitionDuration)"
    )
    assert set(", ".join(durations).split(", ")) == {"0s"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_screenshots(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    open_page: OpenPage,
    web_address: str,
    draw: Draw,
    size: str,
    scheme: str,
) -> None:
    directory = Path(request.config.getoption("--screenshots", default=None) or tmp_path)
    width, height = SIZES[size]
    page = open_page(
        f"http://{web_address}/",
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        device_scale_factor=2,
    )
    page.get_by_role("button", name="Test random image").click()
    expect(page.locator("#tally")).not_to_be_empty()
    draw(page, "5")
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    directory.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=directory / f"web-{size}-{scheme}.png", animations="disabled")
