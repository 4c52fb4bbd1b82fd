"""The file of --model_config_file: read at the start, and again and again where that is wanted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from fairway.errors import FairwayError, UsageError, first_line
from fairway.tfs.configs import ModelConfig, parse_model_configs

_STOP_S = 5.0

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

    Raises:
        UsageError: it cannot be read, or what it holds is no configuration.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._said = ""
        self._text = read_text(path, "--model_config_file")
        self.configs = self._parse(self._text)
        """What it held at first."""

    def watch(self, poll_s: float, apply: Callable[[tuple[ModelConfig, ...]], None]) -> None:
        """Have what the file holds applied when it has changed, in a thread; trouble is only logged.

        Args:
            poll_s: Seconds between two looks.
            apply: Raises `FairwayError` if it has changed nothing; it is asked again at the next look.
        """
        self._thread = threading.Thread(target=self._watch, args=(poll_s, apply), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread:
            self._thread.join(_STOP_S)

    def look(self, apply: Callable[[tuple[ModelConfig, ...]], None]) -> None:
        """Look once, and have what the file holds applied if that has changed."""
        try:
            text = read_text(self._path, "--model_config_file")
            if text != self._text:
                apply(self._parse(text))
                self._text = text
                logger.info("%s has changed and is applied", self._path)
            self._said = ""
        except FairwayError as err:
            if err.message != self._said:
                logger.warning("%s is not applied, all stays as it is: %s", self._path, err.message)
            self._said = err.message

    def _watch(self, poll_s: float, apply: Callable[[tuple[ModelConfig, ...]], None]) -> None:
        while not self._stop.wait(poll_s):
            try:
                self.look(apply)
            except Exception as err:  # the thread must live, or no other change would ever be seen
                logger.exception("applying %s failed: %s", self._path, first_line(err))

    def _parse(self, text: str) -> tuple[ModelConfig, ...]:
        try:
            return parse_model_configs(text)
        except UsageError as err:
            raise UsageError(f"--model_config_file {self._path}: {err.message}", hint=err.hint) from err
