"""`fairway param`, with the tutorial's own lines."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Result, Run

# The 2019 tutorial's commands, with `ks` replaced; its shell variables have values here.
TUTORIAL = r"""
fairway param set --env=local train modelDir /mnt
fairway param set --env=local train exportDir /mnt/export
fairway param set --env=local train pvcName mnist-pvc
fairway param set train --env=local name mnist-train-dist
fairway param set train --env=local trainSteps 200
fairway param set --env=local train numPs 1
fairway param set --env=local train numWorkers 2
fairway param set --env=local train batchSize 100
fairway param set --env=local train learningRate 0.01
fairway param set train --env=local envVariables S3_ENDPOINT=minio:9000,AWS_ENDPOINT_URL=http://minio:9000,AWS_REGION=us-west-1,BUCKET_NAME=b,S3_USE_HTTPS=0,S3_VERIFY_SSL=0
fairway param set train --env=local secretKeyRefs AWS_ACCESS_KEY_ID=aws-creds.awsAccessKeyID,AWS_SECRET_ACCESS_KEY=aws-creds.awsSecretAccessKey
fairway param set --env=local train secret user-gcp-sa=/var/secrets
fairway param set --env=local mnist-deploy-local pvcName p
fairway param set mnist-deploy-aws --env=local s3Enable true
fairway param set mnist-deploy-aws modelBasePath s3://x/export --env=local
fairway param set mnist-deploy-gcp modelBasePath gs://x/export
fairway param set tensorboard --env=local logDir s3://x/y
fairway param set --env=local tensorboard secretKeyRefs AWS_ACCESS_KEY_ID=aws-creds.awsAccessKeyID
fairway param set mnist-service modelName mnist
fairway param set mnist-service trafficRule v1:90,v2:10 --env local
fairway param set --env=local web-ui type LoadBalancer
"""  # noqa: E501


def value(run: Run, component: str, param: str, env: str | None = "local") -> tuple[Any, str]:
    words = ["param", "list", component, "--all", "-o", "json", *([f"--env={env}"] if env else [])]
    (row,) = [row for row in json.loads(run(*words).out) if row["param"] == param]
    return row["value"], row["origin"]


@pytest.mark.parametrize("line", TUTORIAL.split("\n")[1:-1])
def test_the_tutorials_lines(run: Run, local: Path, line: str) -> None:
    words = shlex.split(line)[1:]
    assert run(*words) == Result(0, "", "")
    plain = [word for word in words[2:] if not word.startswith("--env") and word != "local"]
    component, param, said = plain
    found, origin = value(run, component, param)
    assert found == said or str(found).lower() == said
    assert origin == ("environment local" if "--env" in line else "app")


WORDS = ["-x", "--x", "", "a b", "no", "on", "null", "~", "1:30", "007", "0x10", "1e-3", "1.10", "2020-01-01"]
ODD_WORDS = [
    "=",
    "a=b",
    "a,b",
    "a: b",
    "# x",
    "{a}",
    "[a]",
    "'q'",
    '"',
    "\\",
    "é",
    "a\nb",
    " a ",
    "true",
    "&a",
    "!",
]


@pytest.mark.parametrize("word", [*WORDS, *ODD_WORDS])
def test_what_is_set_is_read_back_the_same(run: Run, local: Path, word: str) -> None:
    place = ("tensorboard", "logDir") if word == "" else ("train", "modelDir")
    assert run("param", "set", "--env=local", *place, word).code == 0
    assert value(run, *place) == (word or None, "environment local")


def test_a_value_that_is_a_flag_comes_behind_two_hyphens(run: Run, local: Path) -> None:
    assert run("param", "set", "--env=local", "train", "modelDir", "--", "--env").code == 0
    assert value(run, "train", "modelDir") == ("--env", "environment local")


def test_flags_in_any_place(run: Run, local: Path) -> None:
    for number, words in enumerate(
        [
            ("--env=local", "train", "trainSteps", "1"),
            ("train", "--env", "local", "trainSteps", "2"),
            ("train", "trainSteps", "--env=local", "3"),
            ("train", "trainSteps", "4", "--env", "local"),
        ]
    ):
        assert run("param", "set", *words).code == 0
        assert value(run, "train", "trainSteps") == (number + 1, "environment local")


def test_an_empty_value_is_none(run: Run, local: Path) -> None:
    run("param", "set", "train", "secret", "a=/b")
    assert value(run, "tensorboard", "secret") == ("a=/b", "train.secret")
    assert run("param", "set", "--env=local", "train", "secret", "").code == 0
    assert value(run, "train", "secret") == (None, "environment local")
    assert value(run, "tensorboard", "secret") == (None, "train.secret")
    assert run("param", "delete", "--env=local", "train", "secret").code == 0
    assert value(run, "train", "secret") == ("a=/b", "app")


def test_what_changed_is_printed_for_programs(run: Run, local: Path) -> None:
    app = str(local.parents[1] / "fairway.yaml")
    param = {"component": "train", "param": "numWorkers"}
    done = run("param", "set", "train", "numWorkers", "2", "-o", "json")
    assert json.loads(done.out) == param | {"environment": None, "path": app, "value": "2"}
    run("param", "set", "--env=local", "train", "numWorkers", "3")
    done = run("param", "delete", "-o", "json", "--env=local", "train", "numWorkers")
    assert json.loads(done.out) == param | {"environment": "local", "path": str(local)}


def test_only_its_line_changes(run: Run, root: Path) -> None:
    path = root / "fairway.yaml"
    before = path.read_text()
    run("param", "set", "train", "launcher", "job")
    note = "  # or, where there is no training operator: job, jobset"
    assert path.read_text() == before.replace(f"launcher: tfjob{note}", f"launcher: job{note}")
    run("param", "set", "mnist-deploy-pvc", "replicas", "2")
    assert "    params: {name: mnist-deploy-pvc, storage: pvc, replicas: 2}\n" in path.read_text()


def test_what_is_set_is_listed(run: Run, local: Path) -> None:
    run("param", "set", "--env=local", "train", "numWorkers", "2")
    lines = [line.split() for line in run("param", "list", "train", "--env=local").out.splitlines()]
    assert lines[0] == ["COMPONENT", "PARAM", "VALUE", "ORIGIN"]
    assert ["train", "numWorkers", "2", "environment", "local"] in lines
    assert ["train", "launcher", "tfjob", "app"] in lines
    assert not [line for line in lines if line[-1] == "default"]
    assert run("param", "list", "web-ui") == (0, "", "")
    rows = json.loads(run("param", "list", "-o", "json").out)
    assert all(list(row) == ["component", "param", "value", "origin"] for row in rows)


def test_all_of_them_with_their_help(run: Run, local: Path) -> None:
    shown = run("param", "list", "--all", "--env=local").out
    assert max(map(len, shown.splitlines())) <= 100
    assert "\n  exportDir  " not in shown.split("\ntrain\n")[0]
    web = shown.split("\nweb-ui\n")[1]
    assert "/mnt/export  (train.exportDir)\n      Export directory, for the record" in web
    assert "      Workers besides the chief. [a whole number, at least 0 and at most 1000]\n" in shown
    rows = json.loads(run("param", "list", "--all", "-o", "json").out)
    keys = ["component", "param", "value", "origin", "type", "range", "help"]
    assert all(list(row) == keys for row in rows)


def test_environments_are_compared(run: Run, local: Path) -> None:
    (local.parent / "prod.yaml").write_text("namespace: prod\n")
    assert run("param", "diff", "local", "prod") == (0, "", "")
    assert run("param", "diff", "local", "prod", "-o", "json") == (0, "[]\n", "")
    run("param", "set", "--env=prod", "train", "batchSize", "0128")  # the default, written otherwise
    assert run("param", "diff", "local", "prod").code == 0
    run("param", "set", "--env=prod", "train", "exportDir", "/mnt/prod")
    table = run("param", "diff", "local", "prod")
    lines = [line.split() for line in table.out.splitlines()]
    assert (table.code, lines[0]) == (1, ["COMPONENT", "PARAM", "local", "prod"])
    assert ["train", "exportDir", "/mnt/export", "/mnt/prod"] in lines
    rows = json.loads(run("param", "diff", "local", "prod", "-o", "json").out)
    assert {"component": "train", "param": "exportDir", "first": "/mnt/export", "second": "/mnt/prod"} in rows
    wrong = run("param", "diff", "local", "prd")
    assert (wrong.code, wrong.out) == (2, "")
    assert "environment 'prd' not found" in wrong.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("set", "trian", "numWorkers", "2"), 2, "no component 'trian' in .*; did you mean 'train'?"),
        (("set", "train", "numworker", "2"), 2, "has no param 'numworker'; did you mean 'numWorkers'?"),
        (("set", "train", "numSteps", "2"), 2, "the param numSteps of the 2019 tutorial is gone"),
        (("set", "train", "numWorkers", "two"), 2, "train: numWorkers is 'two', but must be a whole number"),
        (("set", "train", "launcher", "jobs"), 2, "did you mean 'job"),
        (("set", "train", "modelDir", ""), 2, "train: modelDir is '', but must have a value"),
        (("set", "--env=lokal", "train", "numWorkers", "2"), 1, "environment 'lokal' not found"),
        (("delete", "train", "numWorkers"), 2, "numWorkers of train is not set in .*fairway.yaml"),
        (("delete", "--env=local", "train", "launcher"), 2, "launcher of train is not set in .*local.yaml"),
        (("list", "trian"), 2, "did you mean 'train'?"),
        (("list", "--env=lokal"), 1, "did you mean 'local'?"),
    ],
)
def test_what_cannot_be_is_said(
    run: Run, local: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    before = (local.read_bytes(), Path("fairway.yaml").read_bytes())
    failed = run("param", *words)
    assert (failed.code, failed.out) == (code, "")
    assert re.search(message, failed.err)
    assert failed.err.splitlines()[1]
    assert (local.read_bytes(), Path("fairway.yaml").read_bytes()) == before


def test_a_shell_sees_sentences_and_exit_codes(local: Path) -> None:
    code = "from fairway.cli import main; main()"
    command = [sys.executable, "-c", code]
    environment = {key: text for key, text in os.environ.items() if not key.startswith("TF_")}

    def shell(*words: str | bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*command, "param", *words], check=False, capture_output=True, env=environment)

    assert shell("diff", "local", "local").returncode == 0
    shell("set", "--env=local", "train", "numWorkers", "2")
    (local.parent / "prod.yaml").write_text("namespace: prod\n")
    assert shell("diff", "local", "prod").returncode == 1
    assert shell("diff", "local", "nope").returncode == 2
    bad = shell("set", "train", "modelDir", b"\xff")
    assert bad.returncode == 2
    assert b"which is no text in UTF-8" in bad.stderr
    assert b"Traceback" not in bad.stderr
