"""Data directories in an object store."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fairway.config import DataSettings
from fairway.errors import DataError
from fairway.storage.stores.uri import open_store
from fairway.workloads.mnist import data
from tests.servers.moto import Moto
from tests.servers.process import StoreServer
from tests.servers.proxy import Answer, FaultProxy
from tests.unit.workloads.test_idx import idx


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(uri: str) -> None:
    """Write eight training and four test images, not MNIST's."""
    store = open_store(uri)
    for name, count in (("train", 8), ("t10k", 4)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        store.write(f"{name}-images-idx3-ubyte", idx(images))
        labels = gzip.compress(idx(np.arange(count, dtype=np.uint8)))
        store.write(f"{name}-labels-idx1-ubyte.gz", labels)
    store.write("notes.txt", b"not needed")


def custom(uri: str) -> DataSettings:
    return DataSettings(data_dir=uri, dataset="custom")


def test_images_are_read_from_any_store_under_its_name(server: StoreServer) -> None:
    uri = f"{server.new_bucket()}/data/tiny"
    with pytest.raises(DataError, match=f"no MNIST files in data directory {uri}"):
        data.load(custom(uri))
    fill(uri)
    dataset = data.load(custom(uri))
    assert (len(dataset.train), len(dataset.test)) == (8, 4)
    assert dataset.source == uri
    assert dataset.test.name == "the test images of tiny"
    assert len(dataset.sha256) == 4
    with pytest.raises(DataError, match=f"train-images-idx3-ubyte in {uri} is not MNIST's"):
        data.load(DataSettings(data_dir=uri))
    open_store(uri).write("train-images-idx3-ubyte", b"damaged")
    with pytest.raises(DataError, match=f"{uri}/train-images-idx3-ubyte is not a whole MNIST file"):
        data.load(custom(uri))


def test_only_what_has_changed_is_fetched_and_an_outage_is_survived(
    moto: Moto, via_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"{moto.new_bucket()}/data/tiny"
    fill(uri)
    via_proxy.requests.clear()
    first = data.load(custom(uri))
    assert len(via_proxy.requests) == 5  # the list and four files
    assert data.load(custom(uri)).sha256 == first.sha256
    assert len(via_proxy.requests) == 6
    via_proxy.fault = lambda _: Answer(403, "AccessDenied")
    assert data.load(custom(uri)).sha256 == first.sha256
    assert "going on with the copies in" in caplog.text
