"""`fairway component`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.cli.conftest import Run


def test_components_are_listed(run: Run, local: Path) -> None:
    lines = [line.split() for line in run("component", "list").out.splitlines()]
    assert lines[0] == ["COMPONENT", "KIND", "NAME", "TAKES", "PART"]
    assert ["mnist-deploy-gcp", "serving", "mnist-deploy-gcp", "no"] in lines
    rows = json.loads(run("component", "list", "-o", "json").out)
    assert [list(row) for row in rows] == [["component", "kind", "name", "takes_part"]] * 9


def test_an_environment_has_its_own_parts(run: Run, local: Path) -> None:
    for param, place in [("modelDir", "s3://b/m"), ("exportDir", "s3://b/e")]:
        run("param", "set", "--env=local", "train", param, place)
    rows = json.loads(run("component", "list", "--env=local", "--output", "json").out)
    part = {row["component"] for row in rows if row["takes_part"]}
    assert part == {"train", "mnist-deploy-aws", "mnist-service", "tensorboard", "web-ui"}
    assert run("component", "list", "--env=lokal").code == 1
