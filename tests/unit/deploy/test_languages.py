"""The tutorial's mini-languages: what a word says, what YAML says the same, and back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.deploy.languages import (
    SecretKey,
    SecretMount,
    Share,
    amount,
    parse_env_variables,
    parse_gateway,
    parse_labels,
    parse_name,
    parse_pairs,
    parse_quantity,
    parse_secret,
    parse_secret_key_refs,
    parse_service_name,
    parse_size,
    parse_subdomain,
    parse_tolerations,
    parse_traffic_rule,
    write,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
SUBDOMAIN = st.lists(LABEL, min_size=1, max_size=3).map(".".join)
VARIABLE = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
SECRET_KEY = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,11}", fullmatch=True)
PATH = TEXT.map(lambda text: f"/{text.replace(':', '')}")


@given(st.dictionaries(VARIABLE, TEXT, max_size=4))
def test_variables_there_and_back(variables: dict[str, str]) -> None:
    assert parse_env_variables(write(variables)) == variables
    assert parse_env_variables(variables) == variables
    assert parse_env_variables([f"{name}={value}" for name, value in variables.items()]) == variables


@given(st.dictionaries(VARIABLE, st.builds(SecretKey, SUBDOMAIN, SECRET_KEY), max_size=4))
def test_secret_keys_there_and_back(refs: dict[str, SecretKey]) -> None:
    assert parse_secret_key_refs(write(refs)) == refs
    assert parse_secret_key_refs({name: write(ref) for name, ref in refs.items()}) == refs
    assert parse_secret_key_refs([f"{name}={write(ref)}" for name, ref in refs.items()]) == refs


@given(st.builds(SecretMount, SUBDOMAIN, PATH))
def test_a_mount_there_and_back(mount: SecretMount) -> None:
    assert parse_secret(write(mount)) == mount
    assert parse_secret({mount.secret: mount.path}) == mount
    assert parse_secret([f"{mount.secret}={mount.path}"]) == mount


@given(st.dictionaries(LABEL, st.one_of(LABEL, st.just("")), max_size=4))
def test_labels_there_and_back(labels: dict[str, str]) -> None:
    assert parse_labels(write(labels)) == labels


@given(
    st.lists(st.tuples(st.sampled_from(["version", "track"]), LABEL), min_size=1, max_size=5, unique=True),
    st.data(),
)
def test_shares_there_and_back(places: list[tuple[str, str]], data: st.DataObject) -> None:
    cuts = sorted(
        data.draw(st.lists(st.integers(0, 100), min_size=len(places) - 1, max_size=len(places) - 1))
    )
    weights = [after - before for before, after in zip([0, *cuts], [*cuts, 100], strict=True)]
    shares = tuple(Share(*place, weight) for place, weight in zip(places, weights, strict=True))
    assert parse_traffic_rule(write(shares)) == shares
    assert parse_traffic_rule(write(shares).split(",")) == shares


@given(
    st.lists(
        st.fixed_dictionaries(
            {"key": LABEL, "operator": st.just("Exists"), "effect": st.just("NoExecute")},
            optional={"tolerationSeconds": st.integers(0, 10**6)},
        ),
        max_size=3,
    )
)
def test_tolerations_there_and_back(tolerations: list[dict[str, Any]]) -> None:
    assert parse_tolerations(write(tuple(tolerations))) == tuple(tolerations)


def test_a_comma_an_equals_sign_and_a_backslash() -> None:
    word = r"LIST=a\,b,URL=http://h/?q=1&r=2,PATH=C:\\temp,EMPTY=,LAST=end"
    assert parse_pairs(word) == {
        "LIST": "a,b",
        "URL": "http://h/?q=1&r=2",
        "PATH": r"C:\temp",
        "EMPTY": "",
        "LAST": "end",
    }
    assert parse_pairs([r"PATH=C:\temp", "LIST=a,b"]) == {"PATH": r"C:\temp", "LIST": "a,b"}
    assert parse_pairs({"PATH": r"C:\temp", "LIST": "a,b", "EMPTY": None}) == {
        "PATH": r"C:\temp",
        "LIST": "a,b",
        "EMPTY": "",
    }
    assert parse_pairs("A=ends with \\") == {"A": "ends with \\"}


def test_blanks_around_names_and_a_last_comma_are_nothing() -> None:
    assert parse_pairs("A=1, B= 2 ,") == {"A": "1", "B": " 2 "}
    assert parse_pairs("") == parse_pairs(None) == parse_pairs({}) == parse_pairs([]) == {}


def test_dots_of_secrets_and_keys() -> None:
    refs = parse_secret_key_refs(r"A=aws-creds.awsAccessKeyID,B=certs.ca.crt,C=my\.secret.key")
    assert refs == {
        "A": SecretKey("aws-creds", "awsAccessKeyID"),
        "B": SecretKey("certs", "ca.crt"),
        "C": SecretKey("my.secret", "key"),
    }
    assert write(refs) == r"A=aws-creds.awsAccessKeyID,B=certs.ca.crt,C=my\.secret.key"


def test_the_tutorials_words() -> None:
    assert parse_secret("user-gcp-sa=/var/secrets") == SecretMount("user-gcp-sa", "/var/secrets")
    assert parse_secret("") is None
    assert parse_traffic_rule("v1:100") == (Share("version", "v1", 100),)
    assert parse_traffic_rule("v1:90,v2:10")[1] == Share("version", "v2", 10)
    assert parse_traffic_rule("track=canary:100") == (Share("track", "canary", 100),)


def test_tolerations_in_words_and_as_objects() -> None:
    assert parse_tolerations("gpu=yes:NoSchedule,spot:NoExecute,any") == (
        {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists", "effect": "NoExecute"},
        {"key": "any", "operator": "Exists"},
    )
    assert parse_tolerations(
        [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": "300", "value": None}]
    ) == ({"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},)


@pytest.mark.parametrize(
    ("parse", "value", "message"),
    [
        (parse_env_variables, "A=1,b", r"'b' is not NAME=VALUE \(a comma inside of a value is written \\,\)"),
        (parse_env_variables, "=1", "'=1' is not NAME=VALUE"),
        (parse_env_variables, "A=1,A=2", "A is there twice"),
        (parse_env_variables, "1A=1", "'1A' is not the name of an environment variable"),
        (parse_env_variables, [{"name": "A"}], "is not a word"),
        (parse_env_variables, {"A": ["x"]}, "is not a word"),
        (parse_secret_key_refs, "A=creds", "'creds' is not SECRET.KEY"),
        (parse_secret_key_refs, "A=.key", "'.key' is not SECRET.KEY"),
        (parse_secret_key_refs, "A=creds.", "'creds.' is not SECRET.KEY"),
        (parse_secret_key_refs, "A=My_Creds.k", "'My_Creds' is not the name of a Secret"),
        (parse_secret_key_refs, "A=creds.k/y", "'k/y' is not a key of a Secret"),
        (parse_secret, "creds=var/secrets", "'var/secrets' is not an absolute path"),
        (parse_secret, "creds", "'creds' is not NAME=VALUE"),
        (parse_secret, "a=/a,b=/b", "it names more than one Secret"),
        (parse_labels, "-a=1", "'-a' is not the key of a label"),
        (parse_labels, "a=b c", "'b c' is not the value of a label"),
        (parse_traffic_rule, "", "it is empty"),
        (parse_traffic_rule, "v1", "'v1' is not VERSION:PERCENT"),
        (parse_traffic_rule, "v1:ninety", "'v1:ninety' is not VERSION:PERCENT"),
        (parse_traffic_rule, "v1:-1,v2:101", "'v1:-1' is not VERSION:PERCENT"),
        (parse_traffic_rule, "v1:٩٠", "is not VERSION:PERCENT"),
        (parse_traffic_rule, "v1:90,v2:5", "the weights are 95 in all, not 100"),
        (parse_traffic_rule, "v1:50,v1:50", "a version is there twice"),
        (parse_traffic_rule, "V_1:100", "'V_1' is not a version"),
        (parse_traffic_rule, {"v1": "100"}, "is neither a word nor a list"),
        (parse_tolerations, "gpu:Never", "'Never' is not one of NoSchedule, PreferNoSchedule, NoExecute"),
        (parse_tolerations, [{"key": "a", "seconds": "1"}], "'seconds' is not one of key, operator"),
        (parse_tolerations, [{"key": "a", "effect": "x"}], "'x' is not one of NoSchedule"),
        (
            parse_tolerations,
            [{"operator": "Exists", "tolerationSeconds": "5m"}],
            "tolerationSeconds '5m' is not a whole number",
        ),
        (
            parse_tolerations,
            [{"operator": "Exists", "tolerationSeconds": ""}],
            "tolerationSeconds '' is not a whole number",
        ),
        (
            parse_tolerations,
            [{"key": "a", "tolerationSeconds": "1"}],
            "needs the effect NoExecute",
        ),
        (parse_tolerations, [{"key": "a", "operator": "In"}], "'In' is not one of Equal, Exists"),
        (parse_tolerations, [{"key": "a", "operator": "Exists", "value": "b"}], "goes without a value"),
        (parse_tolerations, [{"key": "a", "value": "b c"}], "'b c' is not the value of a taint"),
        (parse_tolerations, [{"key": "a b"}], "'a b' is not the key of a taint"),
        (parse_tolerations, [{"effect": "NoExecute"}], "without a key needs the operator Exists"),
        (parse_tolerations, "gpu=a b:NoSchedule", "'a b' is not the value of a taint"),
        (parse_tolerations, "a..b/gpu", "'a..b/gpu' is not the key of a taint"),
        (parse_secret, "a=/mnt/x:y", "'/mnt/x:y' has a colon, which a path to mount at may not have"),
        (parse_env_variables, "..A=1", "'..A' is not the name of an environment variable"),
        (parse_secret_key_refs, "A=creds.\\..", "'..' is not a key of a Secret"),
        (
            parse_service_name,
            "8ball",
            "'8ball' is not a name of small letters, digits and hyphens that begins",
        ),
        (parse_subdomain, "a..b", "'a..b' is not a name"),
        (parse_subdomain, "a-.b", "'a-.b' is not a name"),
        (parse_subdomain, ".".join(["a" * 63] * 4), "is not a name"),
        (parse_gateway, "a.b/c", "'a.b' is not NAME or NAMESPACE/NAME"),
        (parse_size, "0", "must be above 0"),
        (parse_size, "0.0Gi", "must be above 0"),
        (parse_name, "Mnist", "'Mnist' is not a name of small letters"),
        (parse_name, "a" * 64, "is not a name of small letters"),
        (parse_name, "a\n", "is not a name"),
        (parse_subdomain, "a..", "is not a name"),
        (parse_gateway, "a/b/c", "'a/b' is not NAME or NAMESPACE/NAME"),
        (parse_quantity, "1 Gi", "'1 Gi' is not an amount"),
        (parse_quantity, "-1", "'-1' is not an amount"),
    ],
)
def test_what_is_wrong_is_said(parse: Any, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(value)


@pytest.mark.parametrize(
    ("quantity", "value"),
    [("2", "2"), ("500m", "0.5"), ("1.5Gi", "1610612736"), ("3k", "3000"), ("1e3", "1000"), ("1E3", "1000")],
)
def test_quantities_are_numbers(quantity: str, value: str) -> None:
    assert amount(quantity) == Decimal(value)
