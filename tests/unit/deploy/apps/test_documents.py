"""YAML that people wrote: what is read of it, and that a change touches nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fairway.deploy.apps.documents import DocumentError, delete_entry, parse, set_entry

BY_HAND = """\
# what runs
version: 1
name: mnist      # the name

base: &base
    modelName: digits

components:
    # the training
    train:
        kind: train   # of mnist
        params:
            trainSteps: 200   # few
            image: "registry/train:1"
            modelDir: 's3://bucket/model'
            envVariables:   # of all tasks
                # a note
                LOG: debug
                WHERE: here   # and now
            text: |
              one
              two
            claim: &claim models

    # the servers
    server:
        kind: serving
        params: {name: a, storage: pvc}  # in one line

    service:
        kind: mnist-service
        params:
            <<: *base
            pvcName: *claim

    empty:
        kind: web-ui
        params:   # nothing yet

    last: {kind: tensorboard}



"""
IN_ONE_LINE = "-        params: {name: a, storage: pvc}  # in one line"
LINES = st.sampled_from(["\n", "\r\n"])
WORDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20),
    st.sampled_from(
        ["", "no", "on", "null", "~", "1:30", "007", "0x10", "1e-3", "1.10", "2020-01-01", "=", "<<", "a: b"]
    ),
    st.sampled_from(
        ["- a", "a #b", "# a", "{a}", "[a", "a,b", "'", '"', "\\", "&a", "*a", "!a", "%a", "@", "---"]
    ),
)


def changed(before: str, after: str) -> list[str]:
    """Return the lines that went (-) and came (+)."""
    lines = difflib.unified_diff(before.split("\n"), after.split("\n"), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def common(one: list[str], other: list[str]) -> int:
    """Return how many lines are the same, from the beginning."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (line, each) in enumerate(pairs) if line != each), min(len(one), len(other)))


def test_a_word_is_what_stands_there() -> None:
    text = (
        "a: no\nb: 1:30\nc: 1.10\nd: 007\ne: 0x10\nf: 2020-01-01\ng: on\nh: true\ni: 1_000\nj: '~'\nk: ''\n"
    )
    assert parse(text) == {
        "a": "no",
        "b": "1:30",
        "c": "1.10",
        "d": "007",
        "e": "0x10",
        "f": "2020-01-01",
        "g": "on",
        "h": "true",
        "i": "1_000",
        "j": "~",
        "k": "",
    }


def test_null_is_nothing() -> None:
    assert parse("a:\nb: ~\nc: null\nd: [1, ~]\n") == {"a": None, "b": None, "c": None, "d": ["1", None]}
    assert parse("") is None
    assert parse("# only a comment\n") is None


def test_aliases_and_merges() -> None:
    text = "a: &a {x: 1, y: 2}\nb: *a\nc:\n  y: 3\n  <<: *a\nd:\n  <<: [{x: 4}, *a]\n"
    read = parse(text)
    assert read["b"] == {"x": "1", "y": "2"}
    assert read["c"] == {"y": "3", "x": "1"}
    assert read["d"] == {"x": "4", "y": "2"}


def test_a_byte_order_mark_is_no_content() -> None:
    assert parse("\ufeffa: 1\n") == {"a": "1"}
    assert set_entry("\ufeffa: 1\nb: 2\n", ["a"], "3") == "\ufeffa: 3\nb: 2\n"
    assert set_entry("\ufeffa: 1\n", ["b"], "2", first=True) == "\ufeffb: 2\na: 1\n"
    assert delete_entry("\ufeffa: 1\nb: 2\n", ["a"]) == "\ufeffb: 2\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "line 2: the key 'a' is there twice"),
        ("a: {b: 1, b: 2}", "line 1: the key 'b' is there twice"),
        ("a:\n\tb: 1\n", "line 2: found character that cannot start any token"),
        ("a: [1\n", "line 2: did not find expected"),
        ("a: 1\n---\nb: 2\n", "line 2: but found another document"),
        ("a: *b\n", "line 1: found undefined alias"),
        ("a: &a [*a]\n", "line 1: an alias stands for something that it is part of"),
        ("a: !secret x\n", "line 1: the tag !secret is not known"),
        ("a: !!python/name:os.system x\n", "python/name:os.system is not known"),
        ("? [a]\n: b\n", "line 1: a key is not a word"),
        ("~: b\n", "line 1: a key is not a word"),
        ("a:\n  <<: 1\n", "line 2: << is not followed by"),
        ("a: \x00\n", "control characters are not allowed"),
        ("[" * 100_000, "nest"),
        ("a: " + "[" * 60 + "]" * 60, "line 1: it is nested too deeply"),
        ("#" * 1_000_001, "1,000,001 characters"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_an_alias_bomb_is_refused_at_once() -> None:
    rows = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    with pytest.raises(DocumentError, match="its aliases stand for more than 100,000 values"):
        parse("\n".join(rows))


@pytest.mark.parametrize(
    ("path", "value", "lines"),
    [
        (
            "train.params.trainSteps",
            "500",
            ["-            trainSteps: 200   # few", "+            trainSteps: 500   # few"],
        ),
        ("train.params.image", "x:2", ['-            image: "registry/train:1"', "+            image: x:2"]),
        ("train.params.numWorkers", "2", ["+            numWorkers: 2"]),
        (
            "train.params.envVariables",
            "A=1,B=2",
            [
                "-            envVariables:   # of all tasks",
                "+            envVariables: A=1,B=2   # of all tasks",
                "-                LOG: debug",
                "-                WHERE: here   # and now",
            ],
        ),
        (
            "train.params.text",
            "three",
            ["-            text: |", "-              one", "-              two", "+            text: three"],
        ),
        (
            "server.params.name",
            "b,c",
            [IN_ONE_LINE, "+        params: {name: 'b,c', storage: pvc}  # in one line"],
        ),
        (
            "server.params.replicas",
            "2",
            [IN_ONE_LINE, "+        params: {name: a, storage: pvc, replicas: 2}  # in one line"],
        ),
        ("service.params.modelName", "other", ["+            modelName: other"]),
        ("service.params.pvcName", "other", ["-            pvcName: *claim", "+            pvcName: other"]),
        ("empty.params.replicas", "2", ["+            replicas: 2"]),
        (
            "last.params.name",
            "tb",
            ["-    last: {kind: tensorboard}", "+    last: {kind: tensorboard, params: {name: tb}}"],
        ),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_the_line_of_an_entry_changes(path: str, value: str, lines: list[str], end: str) -> None:
    before = BY_HAND.replace("\n", end)
    after = set_entry(before, ["components", *path.split(".")], value)
    assert [line.rstrip("\r") for line in changed(before, after)] == lines
    assert after.count("\r\n") == (after.count("\n") if end == "\r\n" else 0)


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        ("train.params.trainSteps", ["-            trainSteps: 200   # few"]),
        ("train.params.text", ["-            text: |", "-              one", "-              two"]),
        (
            "server.params.name",
            [IN_ONE_LINE, "+        params: {storage: pvc}  # in one line"],
        ),
        (
            "server.params.storage",
            [IN_ONE_LINE, "+        params: {name: a}  # in one line"],
        ),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_the_line_of_an_entry_goes(path: str, lines: list[str], end: str) -> None:
    before = BY_HAND.replace("\n", end)
    after = delete_entry(before, ["components", *path.split(".")])
    assert [line.rstrip("\r") for line in changed(before, after)] == lines


def test_mappings_with_nothing_left_go_too() -> None:
    text = "context: c\nparams:\n  train:\n    numWorkers: 2\n"
    assert delete_entry(text, ["params", "train", "numWorkers"]) == "context: c\n"
    assert delete_entry("params: {a: {x: 1}, b: {y: 1}}\n", ["params", "b", "y"]) == "params: {a: {x: 1}}\n"
    assert delete_entry("params: {a: {x: 1}}\n", ["params", "a", "x"]) == ""
    assert delete_entry("{params: {a: {x: 1}}}\n", ["params", "a", "x"]) == "{}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "params:\n  train:  # tuned by Ann\n    # numWorkers: 4 (try again)\n    batchSize: 64  # few\n",
            "params:\n  train:  # tuned by Ann\n    # numWorkers: 4 (try again)\n",
        ),
        ("params:  # of dev\n  train:\n    batchSize: 64\n", "params:  # of dev\n"),
        ("params:\n  train:\n    batchSize: 64\n    # numWorkers: 4\n", "    # numWorkers: 4\n"),
        ("params: {train: {batchSize: 64}}  # of dev\n", "params: {}  # of dev\n"),
        ("params:\n  # of dev\n  train: {batchSize: 64}\n", "params:\n  # of dev\n"),
    ],
)
def test_mappings_with_a_comment_stay(before: str, after: str) -> None:
    path = ["params", "train", "batchSize"]
    assert delete_entry(before, path) == after
    assert parse(set_entry(after, path, 32)) == {"params": {"train": {"batchSize": "32"}}}


def test_braces_over_several_lines() -> None:
    text = "a: {\n  x: 1,  # first\n  y: 2  # second\n}\n"
    assert set_entry(text, ["a", "z"], "3") == "a: {\n  x: 1,  # first\n  y: 2, z: 3  # second\n}\n"
    assert parse(delete_entry(text, ["a", "x"])) == {"a": {"y": "2"}}
    assert "# first" in delete_entry(text, ["a", "x"])
    assert delete_entry("a: {\n  x: 1,\n  y: 2,\n}\n", ["a", "x"]) == "a: {\n  y: 2,\n}\n"
    assert parse(delete_entry(text, ["a", "y"])) == {"a": {"x": "1"}}


@pytest.mark.parametrize(
    "text", ["", "# a comment\n", "# no end", "---\n", "a: 1", "a: 1\n\n\n", "params:\n", "params: ~\n"]
)
def test_missing_mappings_are_made(text: str) -> None:
    after = set_entry(text, ["params", "train", "numWorkers"], 2)
    assert parse(after)["params"] == {"train": {"numWorkers": "2"}}
    assert "\nparams:\n  train:\n    numWorkers: 2\n" in f"\n{after}"
    assert (parse(text) or {}).get("a") == parse(after).get("a")


def test_a_new_entry_may_go_first() -> None:
    text = "# of prod\nnamespace: n\n"
    assert set_entry(text, ["context"], "c", first=True) == "# of prod\ncontext: c\nnamespace: n\n"


def test_what_cannot_be_done_without_changing_more_is_refused() -> None:
    with pytest.raises(DocumentError, match="cannot be changed there without changing something else"):
        set_entry(BY_HAND, ["components", "train", "params", "claim"], "x")  # the service's is the same
    with pytest.raises(DocumentError, match="cannot be changed"):
        set_entry(BY_HAND, ["base", "modelName"], "x")
    with pytest.raises(DocumentError, match="x has no place there"):
        set_entry("a: &a {b: 1}\nc: *a\n", ["c", "x"], "1")
    with pytest.raises(DocumentError, match="a has no `key: value` lines"):
        set_entry("a: word\n", ["a", "x"], "1")
    with pytest.raises(DocumentError, match="cannot be changed"):
        delete_entry("a: &a {b: 1, c: 2}\nd: *a\n", ["d", "b"])


@given(value=WORDS, place=st.sampled_from(["train.params.new", "train.params.image", "server.params.name"]))
def test_any_word_is_read_back_the_same(value: str, place: str) -> None:
    path = ["components", *place.split(".")]
    after = set_entry(BY_HAND, path, value)
    read = parse(after)
    for key in path:
        read = read[key]
    assert read == value
    assert len(changed(BY_HAND, after)) <= 2
    assert delete_entry(set_entry(BY_HAND, [*path[:-1], "added"], value), [*path[:-1], "added"]) == BY_HAND


@given(value=WORDS)
def test_other_readers_see_the_same_word(value: str) -> None:
    read = yaml.safe_load(set_entry("", ["a"], value))["a"]
    assert read == value or str(read).lower() == value or isinstance(read, int | float)


VALUES = st.recursive(
    WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
)


@given(value=VALUES, flow=st.booleans())
def test_any_value_is_read_back_the_same(value: Any, flow: bool) -> None:
    text = "a: {b: 1}\n" if flow else "a:\n  b: 1\n"
    assert parse(set_entry(text, ["a", "c"], value))["a"]["c"] == value
    assert parse(set_entry(text, ["a", "b"], value))["a"]["b"] == value


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[list[str]]]:
    """Draw a document with comments, blank lines and some indentation, and the paths of its entries."""
    step = draw(st.integers(1, 6))
    end = draw(LINES)
    lines: list[str] = []
    paths: list[list[str]] = []
    noise = st.sampled_from(["", "# note", "  # note"])
    for outer in draw(
        st.lists(st.sampled_from(["a", "b", "on", "'q'"]), min_size=1, max_size=3, unique=True)
    ):
        lines += [draw(noise), f"{outer}:{draw(st.sampled_from(['', '  # c', '   ']))}"]
        for inner in draw(st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3, unique=True)):
            value = draw(
                st.sampled_from(
                    ["1", "'two'", '"3"', "[1, 2]", "{k: v}", "", "~", "a b   # c", ">-\n#folded"]
                )
            )
            lines += [
                draw(noise),
                f"{' ' * step}{inner}: {value}".replace("#folded", " " * (step + 2) + "text"),
            ]
            paths.append([outer.strip("'"), inner])
    return end.join("\n".join(lines).split("\n")) + draw(st.sampled_from(["", end, end * 3])), paths


@given(drawn=documents(), data=st.data())
def test_no_other_line_changes_in_any_document(
    drawn: tuple[str, list[list[str]]], data: st.DataObject
) -> None:
    text, paths = drawn
    path = data.draw(st.sampled_from(paths))
    edit: Callable[[], str] = data.draw(
        st.sampled_from([lambda: set_entry(text, path, "new"), lambda: delete_entry(text, path)])
    )
    before, after = text.split("\n"), edit().split("\n")
    above = common(before, after)
    below = common(before[above:][::-1], after[above:][::-1])
    lines = 2 if sum(each[0] == path[0] for each in paths) > 1 else 4  # an empty mapping goes, too
    assert len(before) - above - below <= lines
    assert "\n".join(before).count("# note") == "\n".join(after).count("# note")
    assert len(after) - above - below <= 1
