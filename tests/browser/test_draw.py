"""Draw, upload, test: what visitors come for."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect

Draw = Callable[[Page, str], None]


def picture(kind: str = "PNG", size: int = 400, **options: int) -> bytes:
    """A seven, white on black."""
    image = Image.new("L", (size, size))
    line = [(0.25 * size, 0.2 * size), (0.75 * size, 0.2 * size), (0.42 * size, 0.85 * size)]
    ImageDraw.Draw(image).line(line, fill=255, width=size // 11, joint="curve")
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def upload(page: Page, data: bytes, name: str = "seven.png") -> None:
    page.get_by_role("button", name="Upload picture").focus()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": data})


def test_drawn_digits_are_recognised(page: Page, draw: Draw) -> None:
    recognised = {}
    for digit in "0123456789":
        draw(page, digit)
        expect(page.locator("#answer")).to_have_attribute("data-state", "answered")
        recognised[digit] = page.locator("#digit").inner_text()
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#digit")).to_have_text("?")
    assert recognised == {digit: digit for digit in "0123456789"}


def test_bars_and_version_are_the_models_own(page: Page, draw: Draw) -> None:
    with page.expect_response("**/api/predict") as response:
        draw(page, "3")
    assert response.value.ok
    state = page.evaluate("fetch('api/state').then((response) => response.json())")
    expect(page.locator("#by")).to_contain_text(f"version {state['server']['version']}")
    expect(page.locator("#status-text")).to_have_text(state["server"]["message"])
    values = page.locator("#bars .value").all_inner_texts()
    assert 99 < sum(float(value.strip("> \u00a0%")) for value in values) < 101
    assert page.locator("#bars li.best .label").inner_text() == page.locator("#digit").inner_text()
    assert page.locator("#seen").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [28, 28]


def test_answers_come_while_drawing_one_question_at_a_time(page: Page, draw: Draw) -> None:
    open_questions, most, asked = 0, 0, 0

    def begin(request: Any) -> None:
        nonlocal open_questions, most, asked
        if request.url.endswith("api/predict"):
            open_questions, asked = open_questions + 1, asked + 1
            most = max(most, open_questions)

    def end(request: Any) -> None:
        nonlocal open_questions
        open_questions -= request.url.endswith("api/predict")

    page.on("request", begin)
    page.on("requestfinished", end)
    before = page.locator("#answer").bounding_box()
    box = page.locator("#canvas").bounding_box()
    assert box
    page.mouse.move(box["x"] + 150, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 300, steps=30)
    expect(page.locator("#answer")).to_have_attribute("data-state", "answered")  # the button is still down
    page.mouse.up()
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
    assert (most, 1 <= asked < 30) == (1, True)
    assert page.locator("#answer").bounding_box() == before


def test_a_finger_draws_too(open_page: Callable[..., Page], web_address: str) -> None:
    page = open_page(f"http://{web_address}/", viewport={"width": 360, "height": 780}, has_touch=True)
    page.locator("#canvas").tap()
    expect(page.locator("#answer")).to_have_attribute("data-state", "answered")


def test_a_picture_is_uploaded_with_the_keyboard_alone(page: Page) -> None:
    upload(page, picture())
    expect(page.locator("#digit")).to_have_text("7")
    upload(page, picture("JPEG", size=1500), "seven.jpg")
    expect(page.locator("#digit")).to_have_text("7")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello", "That is not a PNG or JPEG picture."),
        (picture()[:60], "The picture is damaged"),
        (bytes(6 * 2**20), "The file has 6.0 MB; the limit is 5 MB."),
    ],
)
def test_what_cannot_be_used_is_said_on_the_page(
    open_page: Callable[..., Page], web_address: str, data: bytes, words: str
) -> None:
    page = open_page(f"http://{web_address}/", expect_errors=True)
    upload(page, data)
    expect(page.get_by_role("alert")).to_contain_text(words)
    expect(page.locator("#digit")).to_have_text("?")


def test_a_photo_too_large_to_send_is_reduced_in_the_browser(page: Page) -> None:
    data = picture(size=2400, compress_level=0)
    assert len(data) > 5 * 2**20
    upload(page, data)
    expect(page.locator("#digit")).to_have_text("7", timeout=20_000)


def test_random_image_shows_truth_answer_and_place(page: Page) -> None:
    button = page.get_by_role("button", name="Test random image")
    button.focus()
    for asked in (1, 2, 3):
        page.keyboard.press("Enter")
        expect(page.locator("#tally")).to_have_text(re.compile(f"[0-9]+ of {asked} right"))
        expect(page.locator("#trial-verdict")).to_have_text(re.compile(r"(Right|Wrong): it is a \d, .* says"))
    expect(page.locator("#trial-source")).to_have_text(
        re.compile(r"Image \d+ of 500 digits of MNIST's training set, held out; answered by version \d+\.")
    )


def test_a_wrong_answer_is_called_wrong(page: Page) -> None:
    def change_truth(route: Any) -> None:
        response = route.fetch()
        answer = response.json()
        route.fulfill(response=response, body=json.dumps(answer | {"truth": (answer["digit"] + 1) % 10}))

    page.route("**/api/random", change_truth)
    page.get_by_role("button", name="Test random image").click()
    expect(page.locator("#trial-verdict")).to_have_text(
        re.compile(r"Wrong: it is a \d, but the model says \d")
    )
    expect(page.locator("#tally")).to_have_text("0 of 1 right")
