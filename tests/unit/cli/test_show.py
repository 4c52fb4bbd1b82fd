"""`fairway show`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

from tests.unit.cli.conftest import Run


def test_manifests_are_printed_always_the_same(run: Run, local: Path) -> None:
    first = run("show", "local")
    assert first.code == 0
    assert first.out.startswith("---\n")
    assert run("show", "local") == first
    kinds = [each["kind"] for each in yaml.safe_load_all(first.out)]
    assert kinds[0] == "PersistentVolumeClaim"
    assert {"TFJob", "Deployment", "Service"} < set(kinds)
    assert {each["metadata"]["namespace"] for each in yaml.safe_load_all(first.out)} == {"models"}


def test_the_order_in_the_file_does_not_matter(run: Run, local: Path) -> None:
    before = run("show", "local").out
    path = Path("fairway.yaml")
    head, _, components = path.read_text().partition("components:\n")
    content = yaml.safe_load(f"components:\n{components}")["components"]
    turned = {name: content[name] for name in reversed(content)}
    path.write_text(head + yaml.safe_dump({"components": turned}, sort_keys=False))
    serving = {"mnist-deploy-pvc", "mnist-deploy-gcp", "mnist-deploy-aws", "mnist-deploy-local"}
    assert serving < set(turned)
    assert run("show", "local").out == before


def test_one_component_and_other_params(run: Run, local: Path) -> None:
    shown = run("show", "local", "-c", "train", "--set", "train.launcher=job", "--set=train.numWorkers=2")
    labels = [each["metadata"]["labels"] for each in yaml.safe_load_all(shown.out)]
    assert {label["app.kubernetes.io/component"] for label in labels} == {"train"}
    assert "kind: TFJob" not in shown.out
    assert "launcher: tfjob" in Path("fairway.yaml").read_text()


def test_json_is_one_list(run: Run, local: Path) -> None:
    shown = json.loads(run("show", "-o", "json", "local").out)
    assert (shown["kind"], shown["items"]) == ("List", list(yaml.safe_load_all(run("show", "local").out)))


def test_what_cannot_be_is_said(run: Run, local: Path) -> None:
    for words, code, message in [
        (("lokal",), 1, "environment 'lokal' not found"),
        (("local", "-c", "trian"), 2, "did you mean 'train'?"),
        (("local", "--set", "train"), 2, "is not COMPONENT.KEY=VALUE"),
        (("local", "--set", "train.numWorkers=x"), 2, "must be a whole number"),
    ]:
        failed = run("show", *words)
        assert (failed.code, failed.out) == (code, "")
        assert message in failed.err


def test_it_loads_nothing_that_it_does_not_need(local: Path) -> None:
    code = """
import sys
from fairway.cli import build_app
build_app()(["show", "local"], exit_on_error=False, result_action="return_value")
heavy = {"tensorflow", "keras", "lightkube", "httpx", "httpx2", "docstring_parser", "ruamel", "rich", "boto3"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
