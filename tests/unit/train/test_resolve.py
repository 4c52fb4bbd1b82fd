"""Which part of the data a task trains on, and what the recipe makes of several."""

from __future__ import annotations

import numpy as np
import pytest

from fairway.config import TrainSettings
from fairway.errors import UsageError
from fairway.net.cluster import Cluster, Task
from fairway.train.resolve import resolve, share
from fairway.workloads.base import Dataset, Split
from fairway.workloads.mnist.workload import Mnist

CHIEF, WORKERS, PS = Task("chief", 0), [Task("worker", 0), Task("worker", 1)], Task("ps", 0)
IMAGES = 1001


def cluster(this: Task, *tasks: Task) -> Cluster:
    return Cluster({task: f"10.0.0.1:{2000 + 2 * number}" for number, task in enumerate(tasks)}, this)


def dataset() -> Dataset:
    labels = np.arange(IMAGES, dtype=np.int64)
    train = Split(np.zeros((IMAGES, 28, 28), np.uint8), labels, "training images")
    return Dataset("mnist", "made for this", {}, train, train)


@pytest.mark.parametrize(
    ("tasks", "training"),
    [
        ((CHIEF, *WORKERS), (CHIEF, *WORKERS)),
        (tuple(WORKERS), tuple(WORKERS)),
        ((CHIEF, *WORKERS, PS), tuple(WORKERS)),
    ],
)
def test_the_tasks_that_train_share_all_images_and_none_twice(
    tasks: tuple[Task, ...], training: tuple[Task, ...]
) -> None:
    settings = TrainSettings(batch_size=100)
    parts = {task: share(settings, dataset(), cluster(task, *tasks)) for task in tasks}
    labels = [parts[task].train.labels for task in training]
    assert sorted(np.concatenate(labels)) == list(range(IMAGES))
    assert max(map(len, labels)) - min(map(len, labels)) <= 1
    for task, part in parts.items():
        assert part.train_images == IMAGES
        if task not in training:
            assert len(part.train) == 0


def test_a_part_is_a_copy_that_frees_the_rest() -> None:
    whole = dataset()
    assert not np.shares_memory(whole.keep(slice(0, None, 2)).train.images, whole.train.images)


def test_a_part_that_does_not_fill_a_batch_is_refused() -> None:
    settings = TrainSettings(batch_size=600)
    assert len(share(settings, dataset(), None).train) == IMAGES
    with pytest.raises(UsageError, match="batch_size is 600, but there are only 501 .* for each worker"):
        share(settings, dataset(), cluster(WORKERS[0], *WORKERS))


def test_tasks_in_step_do_the_recipe_in_fewer_steps_and_others_in_as_many() -> None:
    alone = resolve(Mnist(), TrainSettings(), dataset(), None)
    in_step = resolve(Mnist(), TrainSettings(), dataset(), cluster(WORKERS[0], *WORKERS))
    in_turn = resolve(Mnist(), TrainSettings(), dataset(), cluster(CHIEF, CHIEF, *WORKERS, PS))
    assert alone.train_steps == in_turn.train_steps
    assert alone.train_steps
    assert in_step.train_steps
    assert abs(in_step.train_steps * 2 - alone.train_steps) <= 1
    assert in_step.batch_size == alone.batch_size
