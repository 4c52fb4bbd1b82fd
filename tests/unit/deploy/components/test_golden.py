"""Golden files: the manifests of every kind of component, place of the model and launcher."""

from __future__ import annotations

import pytest

from fairway.deploy.manifests import to_yaml
from tests.conftest import ROOT
from tests.unit.deploy.components.cases import CASES, build_case

GOLDEN = ROOT / "tests" / "golden" / "manifests"


@pytest.mark.parametrize("name", CASES)
def test_manifests_are_as_they_were(name: str, update_golden: bool) -> None:
    path = GOLDEN / f"{name}.yaml"
    text = to_yaml(build_case(name))
    if update_golden:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.is_file(), "write it with: pytest --update-golden"
    assert text == path.read_text()


def test_no_golden_file_is_left_over(update_golden: bool) -> None:
    found = {path.stem: path for path in GOLDEN.iterdir()}
    for name in found.keys() - CASES.keys():
        if update_golden:
            found[name].unlink()
        else:
            pytest.fail(f"{found[name]} is of no case; pytest --update-golden deletes it")
