"""Flags of `fairway apply` that do not go together."""

from __future__ import annotations

import pytest

from fairway.cli import build_app
from fairway.errors import UsageError


def test_a_time_limit_needs_something_to_wait_for() -> None:
    with pytest.raises(UsageError, match="^--timeout is how long --wait waits$"):
        build_app()(["apply", "dev", "--timeout", "5"], exit_on_error=False, result_action="return_value")
