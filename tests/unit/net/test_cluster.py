"""TF_CONFIG: what it says of a training, what it may not say, and written as the operator would."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.errors import UsageError
from fairway.net.cluster import ROLES, Cluster, Task, parse_tf_config, tf_config

CHIEF, PS = Task("chief", 0), Task("ps", 0)
WORKER_0, WORKER_1 = Task("worker", 0), Task("worker", 1)
EVALUATOR = Task("evaluator", 0)

TASK = {"type": "worker", "index": 0}
WORKERS = {"worker": ["a:2222", "b:2222"]}


def parsed(cluster: Any, role: str = "worker", index: int = 0) -> Cluster:
    config = {
        "cluster": cluster,
        "task": {"type": role, "index": index},
        "environment": "cloud",
        "extra": [1],
    }
    result = parse_tf_config(json.dumps(config))
    assert result is not None
    return result


def refused(cluster: Any, task: Any = TASK) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_tf_config(json.dumps({"cluster": cluster, "task": task}))
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_without_a_value_there_is_no_cluster(text: str | None) -> None:
    assert parse_tf_config(text) is None


def test_one_task_trains_alone() -> None:
    cluster = parsed({"chief": ["a:2222"]}, "chief")
    assert (cluster.mode, cluster.is_lead, cluster.followers) == ("single", True, [])
    assert (cluster.spec, cluster.job) == ({"chief": ["a:2222"]}, ("chief", 0))


def test_an_evaluator_does_not_count() -> None:
    cluster = parsed({"chief": ["a:2222"], "evaluator": ["b:2222"]}, "evaluator")
    assert (cluster.mode, cluster.is_lead, cluster.followers) == ("single", False, [])
    assert cluster.spec == {"chief": ["a:2222"]}
    assert cluster.job == ("evaluator", 0)


def test_an_evaluator_need_not_be_in_the_cluster() -> None:
    assert parsed(WORKERS, "evaluator").this == EVALUATOR


def test_a_chief_leads_and_computes_with_the_workers() -> None:
    cluster = parsed({"worker": ["b:2222", "c:2222"], "chief": ["a:2222"]}, "worker", 1)
    assert (cluster.mode, cluster.lead, cluster.is_lead) == ("synchronous", CHIEF, False)
    assert cluster.followers == [WORKER_0, WORKER_1]
    assert cluster.workers == [CHIEF, WORKER_0, WORKER_1]
    assert cluster.spec == {"chief": ["a:2222"], "worker": ["b:2222", "c:2222"]}
    assert cluster.job == ("worker", 1)
    assert cluster.control_address == ("a", 2223)


def test_a_master_is_a_chief() -> None:
    cluster = parsed({"master": ["a:2222"], "worker": ["b:2222"]}, "master")
    assert cluster.this == cluster.lead == CHIEF


def test_without_a_chief_worker_0_leads() -> None:
    cluster = parsed(WORKERS, "worker", 1)
    assert (cluster.lead, cluster.followers) == (WORKER_0, [WORKER_1])
    assert cluster.workers == [WORKER_0, WORKER_1]
    assert cluster.spec == {"chief": ["a:2222"], "worker": ["b:2222"]}
    assert cluster.job == ("worker", 0)
    assert parsed(WORKERS).job == ("chief", 0)


def test_beside_parameter_servers_the_lead_does_not_compute() -> None:
    jobs = {"ps": ["p:2222", "q:2222"], "worker": ["b:2222"], "chief": ["a:2222"]}
    cluster = parsed(jobs, "ps", 1)
    assert (cluster.mode, cluster.workers) == ("asynchronous", [WORKER_0])
    assert cluster.followers == [WORKER_0, PS, Task("ps", 1)]
    assert cluster.job == ("ps", 1)
    assert parsed(WORKERS | {"ps": ["p:2222"]}).workers == [WORKER_1]


def test_followers_are_in_numeric_order() -> None:
    cluster = parsed({"worker": [f"w{index}:2222" for index in range(12)]})
    assert [task.index for task in cluster.followers] == list(range(1, 12))


def test_the_control_address_of_an_ipv6_lead_has_no_brackets() -> None:
    cluster = parsed({"worker": ["[::1]:2222", "[::1]:3333"]})
    assert cluster.control_address == ("::1", 2223)


@pytest.mark.parametrize("text", ["{", "nope", "[" * 100_000, "9" * 5000])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="TF_CONFIG is no JSON"):
        parse_tf_config(text)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"'])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no JSON object"):
        parse_tf_config(text)


@pytest.mark.parametrize("cluster", [None, {}, [], "a:2222"])
def test_no_cluster_is_refused(cluster: Any) -> None:
    assert "has no cluster" in refused(cluster).message


def test_an_unknown_role_is_named_with_the_known_ones() -> None:
    err = refused({"wroker": ["a:2222"]})
    assert "wroker" in err.message
    assert "chief, worker, ps, evaluator" in err.hint


@pytest.mark.parametrize("job", [[], None, "a:2222", {"0": "a:2222"}])
def test_a_job_without_a_list_is_refused(job: Any) -> None:
    assert "'worker'" in refused({"worker": job}).message


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "a:",
        ":2222",
        "a:0",
        "a:65536",
        "a:b",
        "a:22:22",
        "::1:2222",
        "a b:1",
        "http://a:1",
        "a:１",
        2222,
    ],
)
def test_an_address_that_is_none_is_refused(address: Any) -> None:
    err = refused({"worker": ["a:2222", address]})
    assert repr(address) in err.message
    assert "host:2222" in err.hint


def test_an_address_can_belong_to_one_task_only() -> None:
    assert refused({"worker": ["a:2222"], "ps": ["a:2222"]}).message == (
        "TF_CONFIG has a:2222 twice: for worker 0 and ps 0"
    )


def test_there_is_one_chief() -> None:
    assert "2 chiefs" in refused({"chief": ["a:2222", "b:2222"]}).message
    assert "both a chief and a master" in refused({"chief": ["a:2222"], "master": ["b:2222"]}).message


@pytest.mark.parametrize(
    "others", [{}, {"worker": ["b:2222"]}, {"chief": ["b:2222"]}, {"evaluator": ["b:2222"]}]
)
def test_parameter_servers_need_a_worker_that_computes(others: dict[str, list[str]]) -> None:
    assert "no worker" in refused({"ps": ["a:2222"], **others}, {"type": "ps", "index": 0}).message


def test_evaluators_alone_train_nothing() -> None:
    err = refused({"evaluator": ["a:2222"]}, {"type": "evaluator", "index": 0})
    assert "neither a chief nor a worker" in err.message


@pytest.mark.parametrize("task", [None, [], "worker"])
def test_no_task_is_refused(task: Any) -> None:
    assert "has no task" in refused(WORKERS, task).message


@pytest.mark.parametrize("role", [None, 0, "boss", ["worker"]])
def test_a_task_of_an_unknown_role_is_refused(role: Any) -> None:
    assert "unknown role" in refused(WORKERS, {"type": role, "index": 0}).message


@pytest.mark.parametrize("index", [None, True, "0", 0.0, -1])
def test_an_index_that_is_none_is_refused(index: Any) -> None:
    assert "no number" in refused(WORKERS, {"type": "worker", "index": index}).message


@pytest.mark.parametrize(
    ("role", "index", "message"),
    [
        ("worker", 3, "this is task worker 3, but TF_CONFIG has 2 workers"),
        ("ps", 0, "this is task ps 0, but TF_CONFIG has no ps"),
        ("chief", 0, "this is task chief 0, but TF_CONFIG has no chief"),
    ],
)
def test_a_task_outside_of_the_cluster_is_refused(role: str, index: int, message: str) -> None:
    assert refused(WORKERS, {"type": role, "index": index}).message == message


def test_an_evaluator_outside_of_the_evaluators_is_refused() -> None:
    jobs = WORKERS | {"evaluator": ["e:2222"]}
    assert "1 evaluator" in refused(jobs, {"type": "evaluator", "index": 1}).message


def test_the_port_above_the_leads_is_left_to_the_control_channel() -> None:
    assert "a:65535" in refused({"worker": ["a:65535"]}).message
    err = refused({"worker": ["localhost:2222", "localhost:2223"]})
    assert "localhost:2223 for worker 1" in err.message
    assert parsed({"worker": ["a:65534", "a:65535"][:1]}).control_address == ("a", 65535)


def test_tf_config_is_what_the_operator_writes() -> None:
    addresses = {PS: "p:1", WORKER_1: "c:1", EVALUATOR: "e:1", WORKER_0: "b:1", CHIEF: "a:1"}
    assert json.loads(tf_config(addresses, WORKER_1)) == {
        "cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["p:1"]},
        "task": {"type": "worker", "index": 1},
        "environment": "cloud",
    }


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    chief, workers = draw(st.booleans()), draw(st.integers(1, 12))
    servers = draw(st.integers(0, 3)) if chief or workers > 1 else 0
    counts = {"chief": int(chief), "worker": workers, "ps": servers}
    tasks = [Task(role, index) for role, count in counts.items() for index in range(count)]
    addresses = {task: f"10.0.0.{number}:2222" for number, task in enumerate(tasks)}
    return Cluster(addresses, draw(st.sampled_from([*tasks, EVALUATOR])))


@given(clusters())
def test_what_is_written_is_read_the_same(cluster: Cluster) -> None:
    assert parse_tf_config(tf_config(cluster.addresses, cluster.this)) == cluster


@given(clusters())
def test_the_job_is_where_tensorflow_finds_this_task(cluster: Cluster) -> None:
    job, index = cluster.job
    if cluster.this != EVALUATOR:
        assert cluster.spec[job][index] == cluster.addresses[cluster.this]
    assert sum(map(len, cluster.spec.values())) == 1 + len(cluster.followers) == len(cluster.addresses)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["a:1", "b:2", *ROLES]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(ROLES), inner),
)


@given(
    st.text()
    | _JSON.map(json.dumps)
    | st.fixed_dictionaries({"cluster": _JSON, "task": _JSON}).map(json.dumps)
    | st.fixed_dictionaries(
        {
            "cluster": st.dictionaries(
                st.sampled_from([*ROLES, "master"]), st.lists(st.from_regex(r"[ab]:[0-9]{1,5}") | _JSON)
            ),
            "task": st.fixed_dictionaries({"type": st.sampled_from(ROLES) | _JSON, "index": _JSON}),
        }
    ).map(json.dumps)
)
def test_nonsense_is_refused_in_words(text: str) -> None:
    try:
        cluster = parse_tf_config(text)
    except UsageError as err:
        message = str(err)
    else:
        assert cluster is None or cluster.lead in cluster.addresses
        return
    message.encode()  # it can be written out, lone surrogates and all
