"""What the page can ask, and what it is answered."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from fairway.config import DataSettings
from fairway.errors import DataError, UsageError
from fairway.storage.stores import retry
from fairway.web import samples
from fairway.workloads.base import Split


def drawing(size: int = 280) -> bytes:
    image = Image.new("L", (size, size), 255)
    ImageDraw.Draw(image).line([(0.5 * size, 0.2 * size), (0.5 * size, 0.8 * size)], width=size // 11)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def decode(url: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_a_drawing_is_answered_with_what_the_model_saw(ui: Any, fake: Any) -> None:
    answer = ui.post("/api/predict", content=drawing()).json()
    assert (answer["digit"], answer["version"], len(answer["probabilities"])) == (4, 7, 10)
    assert answer["ms"] >= 0
    assert np.array_equal(decode(answer["seen"]), np.rint(fake.images[0] * 255))


def test_a_random_image_comes_from_the_test_set(open_ui: Any, fake: Any, mnist_dir: Path) -> None:
    ui = open_ui(data_dir=str(mnist_dir))
    answers = [ui.post("/api/random").json() for _ in range(4)]
    assert {answer["source"] for answer in answers} == {"the MNIST test set"}
    assert all(0 <= answer["index"] < 10_000 and answer["version"] == 7 for answer in answers)
    assert len({answer["index"] for answer in answers}) > 1
    for answer, image in zip(answers, fake.images, strict=True):
        assert np.array_equal(decode(answer["image"]), np.rint(image * 255))


def test_without_a_test_set_the_reason_is_given(open_ui: Any, tmp_path: Path) -> None:
    response = open_ui(data_dir=str(tmp_path)).post("/api/random")
    assert response.status_code == 404
    assert response.json()["error"] == f"no MNIST files in data directory {tmp_path}"


def test_those_who_wait_for_images_keep_nobody_else_waiting(
    open_ui: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = threading.Event()

    def load_test(settings: DataSettings) -> Split:
        assert read.wait(30)
        raise DataError("no images")

    monkeypatch.setattr(samples, "load_test", load_test)
    ui = open_ui()
    with ThreadPoolExecutor(51) as pool:
        waiting = [pool.submit(ui.post, "/api/random") for _ in range(50)]
        try:
            time.sleep(0.2)
            assert pool.submit(ui.get, "/api/state").result(timeout=5).status_code == 200
        finally:
            read.set()
        assert {each.result().status_code for each in waiting} == {404}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "empty: 0 bytes"),
        (b"hello", 400, "not a PNG or JPEG"),
        (bytes(5 * 2**20 + 1), 413, "larger than 5 MB"),
        (drawing()[:60], 400, "damaged"),
    ],
)
def test_what_cannot_be_recognised_is_explained(ui: Any, body: bytes, status: int, words: str) -> None:
    response = ui.post("/api/predict", content=body)
    assert response.status_code == status
    assert words in response.json()["error"]
    assert response.json()["hint"]


def test_an_empty_drawing_is_explained(ui: Any) -> None:
    buffer = io.BytesIO()
    Image.new("L", (280, 280), 255).save(buffer, "PNG")
    response = ui.post("/api/predict", content=buffer.getvalue())
    assert (response.status_code, response.json()["error"][:20]) == (400, "the picture is empty")


def test_a_server_that_is_down_is_explained_and_forgotten_once_it_is_back(ui: Any, fake: Any) -> None:
    fake.down = httpx.ConnectError("All connection attempts failed")
    state = ui.get("/api/state").json()["server"]
    assert state["state"] == "down"
    assert state["message"] == "model server at 127.0.0.1:8500 does not answer: nothing listens there"
    assert "fairway serve" in state["hint"]
    assert ui.post("/api/predict", content=drawing()).status_code == 503
    fake.down = None
    assert ui.get("/api/state").json()["server"]["message"] == "serving mnist version 7"
    assert ui.post("/api/predict", content=drawing()).json()["version"] == 7


def test_a_training_is_told_while_nothing_is_served(open_ui: Any, fake: Any, tmp_path: Path) -> None:
    fake.states = {}
    ui = open_ui()
    server = ui.get("/api/state").json()["server"]
    assert (server["message"], server["hint"]) == ("no model yet", "Train one with: fairway train")
    (tmp_path / "model").mkdir()
    config = {"run": "r", "train_steps": 468, "model_type": "cnn"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert ui.get("/api/state").json()["server"]["message"] == "no model yet: a training is starting"
    row = {"time": 4e9, "step": 240, "loss": 0.1, "accuracy": 0.979}
    (tmp_path / "model" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    state = ui.get("/api/state").json()
    assert state["server"]["message"] == "no model yet: training, step 240 of 468, 97.9 %"
    assert state["training"]["curve"]["steps"] == [240]


def test_a_served_version_without_its_record_says_so(ui: Any) -> None:
    state = ui.get("/api/state").json()
    assert state["record"] is None
    assert state["record_note"].startswith("No training record at hand")


@pytest.mark.parametrize("uri", ["s3://secret", "s3://secret/models/export"])
def test_visitors_are_told_no_bucket_and_no_host(
    open_ui: Any, fake: Any, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 0.1)
    monkeypatch.setenv("S3_ENDPOINT", "127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    ui = open_ui(data_dir=uri, model_dir=uri, export_dir=uri)
    answers = [ui.get("/api/state").text, ui.post("/api/random").text]
    fake.states, fake.message = {7: "END"}, f"cannot read {uri}/7/saved_model.pb: no answer from 127.0.0.1:1"
    answers.append(ui.get("/api/state").text)
    assert "No training record at hand: version 7 is not in export directory" in answers[0]
    assert "the images cannot be read" in answers[1]
    assert "version 7 of mnist could not be loaded" in answers[2]
    for answer in answers:
        assert "secret" not in answer
        assert "127.0.0.1" not in answer


def test_an_unchanged_state_is_not_sent_again(ui: Any, fake: Any) -> None:
    tag = ui.get("/api/state").headers["etag"]
    assert ui.get("/api/state", headers={"If-None-Match": tag}).status_code == 304
    fake.states = {8: "AVAILABLE"}
    assert ui.get("/api/state", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize("query", ["?server=evil:80", "?addr=evil&port=80&name=x"])
def test_a_visitor_cannot_choose_the_model_server(ui: Any, fake: Any, query: str) -> None:
    headers = {"X-Server": "evil:80", "X-Forwarded-Host": "evil"}
    ui.get(f"/api/state{query}", headers=headers)
    ui.post(f"/api/predict{query}", content=drawing(), headers=headers)
    assert set(fake.paths) == {"/v1/models/mnist", "/v1/models/mnist/versions/7:predict"}


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("cross-site", 403), ("same-site", 403)]
)
def test_another_sites_page_cannot_post(ui: Any, site: str, status: int) -> None:
    response = ui.post("/api/predict", content=drawing(), headers={"Sec-Fetch-Site": site})
    assert response.status_code == status


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/state", "/static/app.js", "/nothing"])
def test_every_answer_carries_the_security_headers(ui: Any, path: str) -> None:
    headers = ui.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self' 'sha256-")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/predict", 405), ("GET", "/x", 404), ("GET", "/static/../app.py", 404)],
)
def test_wrong_requests_are_refused_in_words(ui: Any, method: str, path: str, status: int) -> None:
    response = ui.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]


def test_everything_answers_below_the_prefix_and_without(open_ui: Any) -> None:
    ui = open_ui(path_prefix="/a/ui/")
    for path in ("/", "/healthz", "/api/state", "/static/app.js", "/static/icon.svg"):
        assert ui.get(path).status_code == 200
        assert ui.get(f"/a/ui{path}").content == ui.get(path).content
    redirect = ui.get("/a/ui", follow_redirects=False)
    assert (redirect.status_code, redirect.headers["location"]) == (308, "ui/")
    assert ui.get("/a/ui").status_code == 200
    assert ui.get("/a/uix").status_code == 404


@pytest.mark.parametrize("prefix", ["/a b", "/../x", "/x?y", "http://x/", "/ü"])
def test_what_is_no_path_is_refused_at_the_start(open_ui: Any, prefix: str) -> None:
    with pytest.raises(UsageError, match="path_prefix"):
        open_ui(path_prefix=prefix)


def test_the_page_names_nothing_outside_and_nothing_absolute() -> None:
    static = Path(__file__).parents[3] / "src" / "fairway" / "web" / "static"
    for path in static.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text, path
        assert "https:" not in text, path
        for absolute in ('src="/', 'href="/', 'fetch("/', "url(/", 'from "/'):
            assert absolute not in text, path
