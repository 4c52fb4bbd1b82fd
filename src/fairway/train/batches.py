"""Which images make up which step: a pure function of the seed, so that a run resumes exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class BatchOrder:
    """The images of each step: every epoch shuffles anew and leaves out the last, incomplete batch.

    Args:
        images: Number of training images; at least `batch_size`.
        batch_size: Images per step.
        seed: Same seed, same order.
    """

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self._images, self._batch_size, self._seed = images, batch_size, seed
        self.steps_per_epoch = images // batch_size
        self._epoch = -1
        self._order: NDArray[np.int32] = np.empty((0, batch_size), np.int32)

    def take(self, first_step: int, steps: int) -> NDArray[np.int32]:
        """Return the image numbers of steps, int32 [steps, batch_size]; the first step is 0."""
        rows = [self._batch(step) for step in range(first_step, first_step + steps)]
        return np.stack(rows)

    def _batch(self, step: int) -> NDArray[np.int32]:
        epoch, row = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._images)
            used = order[: self.steps_per_epoch * self._batch_size]
            self._order = used.astype(np.int32).reshape(-1, self._batch_size)
            self._epoch = epoch
        batch: NDArray[np.int32] = self._order[row]
        return batch
