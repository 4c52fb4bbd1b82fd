"""The component `storage`: which access modes a claim may have."""

from __future__ import annotations

import pytest

from fairway.errors import UsageError
from tests.unit.deploy.components.cases import build


@pytest.mark.parametrize("size", ["0", "0Gi", "0.0"])
def test_a_claim_holds_something(size: str) -> None:
    with pytest.raises(UsageError, match=f"size is '{size}', but must be above 0"):
        build("storage", size=size)


@pytest.mark.parametrize("mode", ["ReadWriteOnce", "ReadWriteMany"])
def test_a_claim_is_for_several_pods(mode: str) -> None:
    (claim,) = build("storage", accessMode=mode)
    assert claim["spec"]["accessModes"] == [mode]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("ReadWriteOncePod", "but several pods mount the claim, which that mode forbids"),
        ("ReadWriteTwice", "but must be one of ReadWriteOnce, ReadWriteMany"),
        ("", "but must be one of ReadWriteOnce, ReadWriteMany"),
    ],
)
def test_other_modes_are_refused(mode: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        build("storage", accessMode=mode)
    assert "ReadWriteOnce | ReadWriteMany" in caught.value.hint
