"""Whether a training is done already: what every task asks before it waits for another."""

from __future__ import annotations

import json
import logging

from fairway.config import TrainSettings
from fairway.errors import DataError, StorageError
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


def is_finished(workload: Workload, settings: TrainSettings, cluster: Cluster) -> bool:
    """Tell a task other than the lead that the run of the model directory is exported: nothing is left to do.

    What cannot be read is not finished: the task then waits for its lead.
    """
    try:
        content = read_if_there(open_store(settings.model_dir), CONFIG)
        if content is None:
            return False
        config = json.loads(content)
        total = settings.train_steps or config["train_steps"]
        if exported_version(settings.export_dir, config["run"], total) is None:
            return False
        # The lead may be about to train it further, by the recipe for this number of tasks.
        wanted = resolve(workload, settings, workload.load(settings), cluster).train_steps
        return exported_version(settings.export_dir, config["run"], wanted or total) is not None
    except (StorageError, DataError, KeyError, TypeError, ValueError):
        log.debug("cannot tell whether the training is finished", exc_info=True)
        return False
