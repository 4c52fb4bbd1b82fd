"""What the tests of the clients share."""

from __future__ import annotations

import pytest

from tests.fake_server import FakeServer


@pytest.fixture
def fake() -> FakeServer:
    """A model server with version 7 of mnist."""
    return FakeServer()
