"""Whether a training is done already: what every task asks before it waits for another."""

from __future__ import annotations

import json
import logging
from functools import cached_property

from fairway.config import TrainSettings
from fairway.errors import DataError, StorageError, StoreAwayError
from fairway.net.cluster import Cluster
from fairway.storage.exports import Version, list_versions
from fairway.storage.model_dir import CONFIG
from fairway.storage.stores.store import read_if_there
from fairway.storage.stores.uri import open_store
from fairway.train.resolve import resolve
from fairway.workloads.base import Workload

log = logging.getLogger(__name__)


def exported_version(export_dir: str, run: str, total: int) -> Version | None:
    """Return the newest complete version that a run exported at its last step, or further on.

    Raises:
        StorageError: the export directory cannot be read.
    """
    for version in reversed(list_versions(export_dir)):
        manifest = version.manifest
        if manifest and not version.problem and manifest.run == run and manifest.step >= total:
            return version
    return None


class Finished:
    """Tells a task other than the lead whether its training is exported: then nothing is left to do.

    Args:
        workload: What is trained.
        settings: This task's, as the user gave them.
        cluster: The tasks.
    """

    def __init__(self, workload: Workload, settings: TrainSettings, cluster: Cluster) -> None:
        self._workload, self._settings, self._cluster = workload, settings, cluster

    def __call__(self, is_last_question: bool) -> bool:
        """Look into the directories; what cannot be read is not finished: the task then waits for its lead.

        May be called in any thread.

        Args:
            is_last_question: The lead does not come any more. Until then it may be about to train on, with
                more steps than those of the run that is exported.

        Raises:
            StoreAwayError: the object store gave no answer.
        """
        try:
            content = read_if_there(open_store(self._settings.model_dir), CONFIG)
            config = {} if content is None else json.loads(content)
            return bool(config) and self._is_exported(config["run"], config["train_steps"], is_last_question)
        except StoreAwayError:
            raise
        except (StorageError, DataError, KeyError, TypeError, ValueError):
            log.debug("cannot tell whether the training is finished", exc_info=True)
            return False

    def _is_exported(self, run: str, total: int, is_last_question: bool) -> bool:
        directory, given = self._settings.export_dir, self._settings.train_steps
        if exported_version(directory, run, given or total) is None:
            return False
        return is_last_question or exported_version(directory, run, self._total) is not None

    @cached_property
    def _total(self) -> int:
        """The steps of this job, as its lead resolves them from the settings of this task."""
        if self._settings.train_steps:
            return self._settings.train_steps
        dataset = self._workload.load(self._settings)
        return resolve(self._workload, self._settings, dataset, self._cluster).train_steps or 0
