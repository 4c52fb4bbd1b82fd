"""The file of --model_config_file: read at the start, and again and again where that is wanted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fairway.errors import FairwayError, UsageError, first_line
from fairway.storage.outage import explain
from fairway.tfs.configs import ModelConfig, parse_model_configs

# A configuration that was refused is tried again: what it names may come. But each time may load models.
_FIRST_RETRY_S = 1.0
_MAX_RETRY_S = 60.0

logger = logging.getLogger(__name__)


def read_text(path: str, flag: str) -> str:
    """Return the content of a file that a flag names.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is not UTF-8"
        raise UsageError(f"{flag} {path} cannot be read: {reason}") from err


class ConfigFile:
    """A file with the configuration of models.

    Args:
        path: Of the file.
        clock: Seconds that never go back.

    Raises:
        UsageError: it cannot be read, or what it holds is no configuration.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._stop = threading.Event()
        self._said = ""
        self._refused = ""
        self._retry_at = 0.0
        self._delay_s = _FIRST_RETRY_S
        self._text = read_text(path, "--model_config_file")
        self.configs = self._parse(self._text)
        """What it held at first."""

    def watch(self, poll_s: float, apply: Callable[[tuple[ModelConfig, ...]], None]) -> None:
        """Have what the file holds applied when it has changed, in a thread; trouble is only logged.

        Args:
            poll_s: Seconds between two looks.
            apply: Raises `FairwayError` if it has changed nothing; it is asked again, ever more rarely.
        """
        threading.Thread(target=self._watch, args=(poll_s, apply), daemon=True).start()

    def stop(self) -> None:
        """Stop looking; returns at once, also while what the file holds is being applied."""
        self._stop.set()

    @contextmanager
    def named(self) -> Iterator[None]:
        """Have the errors of a block that uses its content name the file."""
        try:
            yield
        except FairwayError as err:
            err.message = f"--model_config_file {self._path}: {err.message}"
            err.args = (err.message,)
            raise  # itself, as its kind decides how the process exits

    def look(self, apply: Callable[[tuple[ModelConfig, ...]], None]) -> None:
        """Look once, and have what the file holds applied if that has changed."""
        try:
            text = read_text(self._path, "--model_config_file")
            if text == self._refused and self._clock() < self._retry_at:
                return
            if text != self._text:
                self._apply(text, apply)
                logger.info("%s has changed and is applied", self._path)
            self._said = self._refused = ""
        except FairwayError as err:
            if (reason := explain(err)) != self._said and not self._stop.is_set():
                logger.warning("%s is not applied, all stays as it is: %s", self._path, reason)
            self._said = reason

    def _apply(self, text: str, apply: Callable[[tuple[ModelConfig, ...]], None]) -> None:
        try:
            apply(self._parse(text))
        except Exception:
            again = text == self._refused
            self._delay_s = min(2 * self._delay_s, _MAX_RETRY_S) if again else _FIRST_RETRY_S
            self._refused, self._retry_at = text, self._clock() + self._delay_s
            raise
        self._text = text

    def _watch(self, poll_s: float, apply: Callable[[tuple[ModelConfig, ...]], None]) -> None:
        while not self._stop.wait(poll_s):
            try:
                self.look(apply)
            except Exception as err:  # the thread must live, or no other change would ever be seen
                logger.exception("applying %s failed: %s", self._path, first_line(err))

    def _parse(self, text: str) -> tuple[ModelConfig, ...]:
        with self.named():
            return parse_model_configs(text)
