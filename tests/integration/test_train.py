"""`fairway train` as a user runs it: real TensorFlow, real kills, real damage."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fairway.config import DataSettings
from fairway.storage.exports import Version, damaged_files, list_versions
from fairway.storage.manifest import CURVES, TFLITE, WARMUP
from fairway.workloads.mnist.data import load_test
from tests.conftest import Fairway
from tests.integration.jobs import read_metrics

MODEL = "mnist/model"
QUICK = ("train", "--dataset", "embedded", "--model-type", "linear", "--checkpoint-steps", "50")


def versions(home: Path) -> list[Version]:
    return list_versions(home / "mnist" / "export")


def start(home: Path, environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fairway", *words]
    return subprocess.Popen(command, cwd=home, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_step(home: Path, process: subprocess.Popen[str], step: int) -> None:
    """Wait until the running training has recorded a step."""
    deadline = time.monotonic() + 120
    while not any(line["step"] >= step for line in read_metrics(home / MODEL)):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_export_holds_what_it_promises(trained_export: Path) -> None:
    (version,) = list_versions(trained_export)
    assert not version.problem
    assert not damaged_files(version)
    manifest = version.manifest
    assert manifest is not None
    assert manifest.metrics["test_accuracy"] > 0.97
    assert (manifest.dataset.name, manifest.dataset.train_images, manifest.dataset.test_images) == (
        *("embedded", 4500, 500),
    )
    assert manifest.tflite["max_abs_difference"] <= 1e-5
    assert set(manifest.signatures) == {"serving_default", "classify_png"}
    for name in (TFLITE, WARMUP, CURVES, "saved_model.pb", "variables/variables.index"):
        assert name in manifest.files
    curve = [json.loads(line) for line in (version.path / CURVES).read_text().splitlines()]
    assert curve[-1]["test_accuracy"] == pytest.approx(manifest.metrics["test_accuracy"])
    assert abs(version.number - time.time()) < 3600
    assert [path.name for path in trained_export.iterdir()] == [str(version.number)]


def test_exported_model_answers_as_recorded(trained_export: Path) -> None:
    """TensorFlow and LiteRT give the same answers, to pixels and to image files."""
    code = f"""
import io, json, sys
import numpy as np, tensorflow as tf
from PIL import Image
from fairway.config import DataSettings
from fairway.workloads.mnist.data import load_test
split = load_test(DataSettings(dataset="embedded"))
model = tf.saved_model.load({str(next(trained_export.iterdir()))!r})
x = split.images.astype("float32") / 255
pixels = model.signatures["serving_default"](x=tf.constant(x))
files = []
for image in split.images:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    files.append(file.getvalue())
files = model.signatures["classify_png"](image_bytes=tf.constant(files))
assert pixels["classes"].dtype == tf.int64 and pixels["predictions"].shape == (500, 10)
np.testing.assert_allclose(files["predictions"], pixels["predictions"], atol=1e-5)
np.testing.assert_allclose(pixels["predictions"].numpy().sum(axis=1), 1, atol=1e-5)
np.save(sys.argv[1], pixels["predictions"])
"""
    answers = trained_export.parent / "answers.npy"
    subprocess.run([sys.executable, "-c", code, str(answers)], check=True, timeout=120)
    from ai_edge_litert.interpreter import Interpreter

    (version,) = list_versions(trained_export)
    split = load_test(DataSettings(dataset="embedded"))
    runner = Interpreter(model_path=str(version.path / TFLITE)).get_signature_runner("serving_default")
    lite = runner(x=split.images.astype(np.float32) / 255)
    np.testing.assert_allclose(lite["predictions"], np.load(answers), atol=1e-5)
    assert version.manifest is not None
    accuracy = float((lite["classes"] == split.labels).mean())
    assert accuracy == pytest.approx(version.manifest.metrics["test_accuracy"])


def test_finished_run_exports_once_and_trains_on_when_asked(tmp_path: Path, fairway: Fairway) -> None:
    first = fairway(*QUICK, "--train-steps", "60")
    assert first.returncode == 0, first.stderr
    again = fairway(*QUICK, "--train-steps", "60")
    assert again.returncode == 0
    assert "trained already: step 60 of 60" in again.stderr
    assert again.stdout == first.stdout
    assert len(versions(tmp_path)) == 1
    more = fairway(*QUICK, "--train-steps", "90", "--keep", "1")
    assert "resuming at step 60 of 90" in more.stderr
    assert f"deleted version {Path(first.stdout.strip()).name}: the newest 1 are kept" in more.stderr
    assert [version.manifest and version.manifest.step for version in versions(tmp_path)] == [90]
    recorded = [line["step"] for line in read_metrics(tmp_path / MODEL) if "checkpoint_s" not in line]
    assert recorded == [20, 40, 50, 60, 80, 90, 90]


def test_killed_at_random_moments_it_ends_at_the_same_step(
    tmp_path: Path, environment: dict[str, str], fairway: Fairway
) -> None:
    total = 1500
    rng = random.Random(time.time_ns())
    reached = 0
    for _ in range(3):
        reached = min(reached + rng.randrange(20, 500), total - 100)
        with start(tmp_path, environment, *QUICK, "--train-steps", str(total)) as process:
            wait_for_step(tmp_path, process, reached)
            process.kill()
        assert not versions(tmp_path)
    done = fairway(*QUICK, "--train-steps", str(total))
    assert done.returncode == 0, done.stderr
    resumed = int(done.stderr.split("resuming at step ")[1].split()[0])
    assert reached - 100 <= resumed <= total
    (version,) = versions(tmp_path)
    assert version.manifest is not None
    assert version.manifest.step == total
    steps = [line["step"] for line in read_metrics(tmp_path / MODEL) if "loss" in line]
    assert steps == sorted(set(steps))
    assert steps[-1] == total
    assert version.manifest.metrics["test_accuracy"] > 0.85


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_stop_saves_a_checkpoint_first(
    tmp_path: Path, environment: dict[str, str], fairway: Fairway, signum: signal.Signals, code: int
) -> None:
    words = ("train", "--dataset", "embedded", "--train-steps", "1000", "--checkpoint-steps", "1000000")
    with start(tmp_path, environment, *words) as process:
        wait_for_step(tmp_path, process, 20)
        process.send_signal(signum)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    step = int(stderr.split("at step ")[1].split()[0])
    assert f"stopped by {signum.name} at step {step} of 1000; a checkpoint is saved" in stderr
    checkpoints = tmp_path / "mnist" / "model" / "checkpoints"
    assert [path.name for path in checkpoints.glob("*.index")] == [f"ckpt-{step:08d}.index"]
    again = fairway(*words[:4], str(step + 20))
    assert f"resuming at step {step} of {step + 20}" in again.stderr


def test_damaged_checkpoints_are_passed_over(tmp_path: Path, fairway: Fairway) -> None:
    fairway(*QUICK, "--train-steps", "110")
    checkpoints = tmp_path / "mnist" / "model" / "checkpoints"
    newest = checkpoints / "ckpt-00000110.data-00000-of-00001"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    done = fairway(*QUICK, "--train-steps", "130")
    assert done.returncode == 0, done.stderr
    assert "ckpt-00000110 is damaged and passed over" in done.stderr
    assert "resuming at step 100 of 130" in done.stderr
    for path in checkpoints.glob("*.data-*"):
        path.write_bytes(path.read_bytes()[:20])
    done = fairway(*QUICK, "--train-steps", "150")
    assert done.returncode == 1
    assert "none of the 3 checkpoints" in done.stderr
    assert "Traceback" not in done.stderr


def test_directory_of_another_training_is_refused(tmp_path: Path, fairway: Fairway) -> None:
    fairway(*QUICK, "--train-steps", "10")
    before = read_metrics(tmp_path / MODEL)
    done = fairway("train", "--dataset", "embedded", "--train-steps", "20")
    assert done.returncode == 2
    assert "mnist/model holds a training of model_type 'linear', not 'cnn'" in done.stderr
    assert "--model-dir" in done.stderr
    assert read_metrics(tmp_path / MODEL) == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--train-steps", "0"), 2, "train_steps is 0, but must be at least 1"),
        (("--train-steps=-3",), 2, "train_steps is -3"),
        (("--train-steps", "1.5"), 2, "1.5"),
        (("--train-steps", "many"), 2, "many"),
        (("--learning-rate", "nan"), 2, "learning_rate is nan"),
        (("--batch-size", "5000"), 2, "batch_size is 5000, but there are only 4500 training images"),
        (("--model-type", "cnnn"), 2, "cnn"),
        (("--batchsize", "3"), 2, "Did you mean --batch-size?"),
        (("--model-dir", "file/model"), 1, "cannot write to file/model: a part of the path is a file"),
        (("--export-dir", "file/export"), 1, "cannot write to file/export"),
        (("--model-dir", "/proc/model"), 1, "cannot write to /proc/model"),
        (("--data-dir", "nowhere"), 1, "no MNIST files in data directory nowhere"),
    ],
)
def test_nonsense_is_explained(
    tmp_path: Path, fairway: Fairway, words: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "file").touch()
    done = fairway("train", *words, TF_DATASET="auto" if "--data-dir" in words else "embedded")
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not versions(tmp_path)


def test_settings_come_from_the_environment_and_flags_win(tmp_path: Path, fairway: Fairway) -> None:
    done = fairway(
        *("train", "--train-steps", "20"),
        TF_DATASET="embedded",
        TF_MODEL_TYPE="linear",
        TF_TRAIN_STEPS="999",
        TF_EXPORT_DIR="elsewhere",
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "mnist" / "model" / "config.json").read_text())
    assert (config["train_steps"], config["model_type"], config["dataset"]["name"]) == (
        20,
        "linear",
        "embedded",
    )
    assert config["settings"]["export_dir"] == "elsewhere"
    assert Path(done.stdout.strip()).parent.name == "elsewhere"


def test_full_disk_ends_in_a_sentence_and_the_run_goes_on_later(
    tmp_path: Path, environment: dict[str, str], fairway: Fairway
) -> None:
    words = ("train", "--dataset", "embedded", "--train-steps", "60", "--checkpoint-steps", "20")
    limit = 300_000  # bytes a file: enough for metrics, too little for a checkpoint of the cnn
    done = subprocess.run(
        [sys.executable, "-m", "fairway", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot write to mnist/model/checkpoints: a file would grow beyond the limit" in done.stderr
    assert "Traceback" not in done.stderr
    done = fairway(*words)
    assert done.returncode == 0, done.stderr
    assert len(versions(tmp_path)) == 1


def test_second_trainer_on_a_directory_is_refused(
    tmp_path: Path, environment: dict[str, str], fairway: Fairway
) -> None:
    with start(tmp_path, environment, *QUICK, "--train-steps", "100000") as process:
        wait_for_step(tmp_path, process, 20)
        done = fairway(*QUICK, "--train-steps", "100000")
        process.kill()
    assert done.returncode == 1
    assert "another process is at work (train) in mnist/model" in done.stderr
