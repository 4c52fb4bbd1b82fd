"""Which images make up which step."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fairway.train.batches import BatchOrder


@given(images=st.integers(1, 50), batch=st.integers(1, 50), seed=st.integers(0, 2**31 - 1), data=st.data())
def test_any_resume_sees_the_same_batches(images: int, batch: int, seed: int, data: st.DataObject) -> None:
    batch = min(batch, images)
    total = data.draw(st.integers(1, 30))
    cut = data.draw(st.integers(0, total))
    whole = BatchOrder(images, batch, seed).take(0, total)
    first = BatchOrder(images, batch, seed).take(0, cut) if cut else whole[:0]
    rest = BatchOrder(images, batch, seed).take(cut, total - cut) if cut < total else whole[:0]
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)
    assert whole.shape == (total, batch)
    assert whole.dtype == np.int32


def test_an_epoch_holds_no_image_twice_and_the_next_is_shuffled_anew() -> None:
    order = BatchOrder(images=1000, batch_size=10, seed=3)
    first, second = order.take(0, 100), order.take(100, 100)
    assert sorted(first.ravel()) == sorted(second.ravel()) == list(range(1000))
    assert (first != second).any()
    assert (BatchOrder(1000, 10, seed=4).take(0, 100) != first).any()
