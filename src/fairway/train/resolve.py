"""What settings mean for a data set: every `None` and `auto` gets its value."""

from __future__ import annotations

from dataclasses import replace

from fairway.config import TrainSettings
from fairway.errors import UsageError
from fairway.net.cluster import Cluster
from fairway.train.precision import best_precision
from fairway.workloads.base import Dataset, Workload


def resolve(
    workload: Workload, settings: TrainSettings, dataset: Dataset, cluster: Cluster | None
) -> TrainSettings:
    """Return the settings with every `None` and `auto` replaced by what it means here.

    Args:
        workload: Has the recipe.
        settings: As the user gave them.
        dataset: All of it.
        cluster: The tasks; those that train in step make a larger batch of theirs.
    """
    in_step = len(cluster.workers) if cluster and cluster.mode == "synchronous" else 1
    recipe = workload.recipe(settings.model_type, dataset, settings.batch_size * in_step)
    return replace(
        settings,
        dataset=dataset.name,
        train_steps=settings.train_steps or recipe.train_steps,
        learning_rate=settings.learning_rate or recipe.learning_rate,
        augment=recipe.augment if settings.augment is None else settings.augment,
        precision=best_precision() if settings.precision == "auto" else settings.precision,
    )


def share(settings: TrainSettings, dataset: Dataset, cluster: Cluster | None) -> Dataset:
    """Return the data with just the training images that this task trains on.

    Raises:
        UsageError: they do not fill a batch.
    """
    if cluster is None:
        part = dataset
    elif cluster.this in cluster.workers:
        part = dataset.keep(slice(cluster.workers.index(cluster.this), None, len(cluster.workers)))
    else:
        return dataset.keep(slice(0))  # the lead of others, or a parameter server
    if settings.batch_size > len(part.train):
        raise UsageError(
            f"batch_size is {settings.batch_size}, but there are only {len(part.train)} training images"
            + (" for each worker" if cluster else ""),
            hint="Set a smaller one with --batch-size or TF_BATCH_SIZE.",
        )
    return part
