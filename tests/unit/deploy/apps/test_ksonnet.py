"""What is read of an old ksonnet app, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairway.deploy.apps.jsonnet import Evaluator
from fairway.deploy.apps.ksonnet import KsonnetApp, KsonnetEnvironment, read_app
from fairway.errors import DataError, FairwayError, StorageError

APP = """
apiVersion: 0.3.0
kind: ksonnet.io/app
name: digits
version: 0.0.1
environments:
  prod:
    destination: {server: "https://10.0.0.1:6443", namespace: models}
    k8sVersion: v1.11.3
    path: prod
"""
# The shape and the names of the 2019 tutorial's file.
BASE = """
{
  global: {},
  // made by: ks generate
  components: {
    train: {
      batchSize: 64.0,
      exportDir: 'gs://bucket/digits/export',
      learningRate: '0.01',
      modelDir: 'gs://bucket/digits',
      name: 'digits-train',
      numPs: 0,
      numWorkers: 0,
      secret: '',
      trainSteps: 200.0,
    },
    "mnist-deploy-aws": {
      modelBasePath: 's3://bucket/digits',
      modelName: 'null',
      s3Enable: 'false',
    },
    "mnist-service": { name: 'digits-service', trafficRule: 'v1:100' },
    "web-ui": { containerPort: 5000, replicas: 1 },
  },
}
"""
NEW_FORM = """
local params = std.extVar("__ksonnet/params");
local globals = import "globals.libsonnet";
local envParams = params + {
  components+: {
%s
  },
};
{
  components: {
    [x]: envParams.components[x] + globals
    for x in std.objectFields(envParams.components)
  },
}
"""
OLD_FORM = """
local params = import "../../components/params.libsonnet";
params + {
  components+: {
%s
  },
}
"""
OVERRIDES = """
    train+: { numWorkers: 2.0, name: 'digits-dist', numPs: 0 },
    "mnist-service"+: { namespace: 'models' },
"""


class App:
    """Writes a ksonnet app file by file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("app.yaml", APP)
        self.write("components/params.libsonnet", BASE)
        self.write("environments/base.libsonnet", "not read")
        self.environment("prod", OVERRIDES)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def environment(
        self, name: str, overrides: str, *, form: str = NEW_FORM, global_params: str = "{\n}"
    ) -> None:
        self.write(f"environments/{name}/params.libsonnet", form % overrides)
        self.write(f"environments/{name}/globals.libsonnet", global_params)
        self.write(f"environments/{name}/main.jsonnet", "not read")
        self.write(f"environments/{name}/.metadata/params.libsonnet", "not read")

    def read(self) -> KsonnetApp:
        return read_app(self.root)

    def params(self, name: str = "prod") -> dict[str, dict[str, Any]]:
        return next(found for found in self.read().environments if found.name == name).params

    def refusal(self) -> FairwayError:
        """Return why the app is refused, which must be said in one sentence, with a hint."""
        with pytest.raises(FairwayError) as caught:
            self.read()
        assert "\n" not in caught.value.message
        assert "Traceback" not in caught.value.message
        assert len(caught.value.message) < 400
        assert caught.value.hint
        return caught.value


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path / "ks_app")


def test_an_app_of_the_tutorials_shape(app: App) -> None:
    read = app.read()
    assert read.name == "digits"
    assert read.components == {
        "train": {
            "batchSize": 64,
            "exportDir": "gs://bucket/digits/export",
            "learningRate": "0.01",
            "modelDir": "gs://bucket/digits",
            "name": "digits-train",
            "numPs": 0,
            "numWorkers": 0,
            "secret": "",
            "trainSteps": 200,
        },
        "mnist-deploy-aws": {
            "modelBasePath": "s3://bucket/digits",
            "modelName": "null",
            "s3Enable": "false",
        },
        "mnist-service": {"name": "digits-service", "trafficRule": "v1:100"},
        "web-ui": {"containerPort": 5000, "replicas": 1},
    }
    assert read.environments == [
        KsonnetEnvironment(
            name="prod",
            server="https://10.0.0.1:6443",
            namespace="models",
            kubernetes_version="v1.11.3",
            params={
                "train": {"numWorkers": 2, "name": "digits-dist", "numPs": 0},
                "mnist-service": {"namespace": "models"},
            },
        )
    ]
    assert read.notes == []


def test_components_and_params_keep_the_order_of_the_file(app: App) -> None:
    read = app.read()
    assert list(read.components) == ["train", "mnist-deploy-aws", "mnist-service", "web-ui"]
    assert list(read.components["train"])[:3] == ["batchSize", "exportDir", "learningRate"]
    assert list(app.params()) == ["train", "mnist-service"]
    assert list(app.params()["train"]) == ["numWorkers", "name", "numPs"]


def test_whole_numbers_are_int_and_the_rest_keeps_its_type(app: App) -> None:
    values = "{i: 200.0, f: 0.5, s: '200', t: true, n: null, l: [1.0, 'a'], o: {x: -0}, big: 1e300}"
    app.write("components/params.libsonnet", f"{{components: {{train: {values}}}}}")
    train = app.read().components["train"]
    assert train == {
        "i": 200,
        "f": 0.5,
        "s": "200",
        "t": True,
        "n": None,
        "l": [1, "a"],
        "o": {"x": 0},
        "big": 1e300,
    }
    assert [type(train[key]) for key in ("i", "t", "big")] == [int, bool, float]
    assert type(train["l"][0]) is type(train["o"]["x"]) is int


@pytest.mark.parametrize("form", [NEW_FORM, OLD_FORM])
def test_both_forms_of_an_environments_params(app: App, form: str) -> None:
    app.environment("prod", OVERRIDES, form=form)
    assert app.params() == {
        "train": {"numWorkers": 2, "name": "digits-dist", "numPs": 0},
        "mnist-service": {"namespace": "models"},
    }


@pytest.mark.parametrize("form", [NEW_FORM, OLD_FORM])
def test_a_value_set_to_what_it_already_is_counts_as_set(app: App, form: str) -> None:
    app.environment("prod", "train+: { batchSize: 64 },", form=form)
    assert app.params() == {"train": {"batchSize": 64}}


@pytest.mark.parametrize("form", [NEW_FORM, OLD_FORM])
def test_values_computed_from_the_components_params(app: App, form: str) -> None:
    overrides = """
        train+: {
          trainSteps: super.trainSteps * 2,
          modelDir: params.components.train.modelDir + '/prod',
          numPs: true,
        },
    """
    app.environment("prod", overrides, form=form)
    assert app.params() == {
        "train": {"trainSteps": 400, "modelDir": "gs://bucket/digits/prod", "numPs": True}
    }


def test_true_differs_from_one(app: App) -> None:
    app.environment("prod", "'web-ui'+: { replicas: super.replicas == 1 },")
    assert app.params() == {"web-ui": {"replicas": True}}


def test_a_param_that_follows_from_an_overridden_one(app: App) -> None:
    app.write("components/params.libsonnet", "{components: {train: {a: 1, b: self.a + 1, c:: 3, d: 4}}}")
    app.environment("prod", "train+: { a: 5 },", form=OLD_FORM)
    assert app.params() == {"train": {"a": 5, "b": 6}}


def test_a_param_that_is_extended_comes_whole(app: App) -> None:
    app.write("components/params.libsonnet", "{components: {train: {limits: {cpu: 1, memory: '2Gi'}}}}")
    app.environment("prod", "train+: { limits+: { cpu: 2 } },")
    assert app.params() == {"train": {"limits": {"cpu": 2, "memory": "2Gi"}}}


def test_globals_belong_to_each_component(app: App) -> None:
    app.environment("prod", "train+: { namespace: 'lost' },", global_params="{ namespace: 'all' }")
    assert app.params() == {name: {"namespace": "all"} for name in app.read().components}
    assert app.read().notes == ["The globals of environment prod now belong to each component: namespace."]


def test_a_component_of_one_environment_is_kept_with_a_note(app: App) -> None:
    app.environment("prod", "'deploy-gcp'+: { modelBasePath: 'gs://bucket/other' }, empty: {},")
    assert app.params() == {"deploy-gcp": {"modelBasePath": "gs://bucket/other"}, "empty": {}}
    assert app.read().notes == [
        "Component deploy-gcp is only in environment prod.",
        "Component empty is only in environment prod.",
    ]


def test_what_an_environment_takes_away_is_noted(app: App) -> None:
    app.write(
        "environments/prod/params.libsonnet",
        "{components: {train: {name: 'n'}, 'mnist-deploy-aws': {},"
        " 'web-ui': {containerPort: 5000, replicas: 1}}}",
    )
    read = app.read()
    assert read.environments[0].params == {
        "train": {"name": "n"},
        "web-ui": {"containerPort": 5000, "replicas": 1},
    }
    assert [note.partition(",")[0] for note in read.notes] == [
        "Params of train are removed by environment prod",
        "Params of mnist-deploy-aws are removed by environment prod",
        "Component mnist-service is left out by environment prod",
    ]


def test_global_params_registries_libraries_targets_and_manifests_are_noted(app: App) -> None:
    app.write("components/params.libsonnet", "{global: {group: 'x'}, components: {train: {}}}")
    app.write("components/train.jsonnet", "not read")
    app.write("components/extra.yaml", "not read")
    app.write("components/util.libsonnet", "not read")
    app.write(
        "app.yaml",
        APP
        + "    targets: [train, sub]\n    libraries: {kubeflow/core: {name: core}}\n"
        + "registries: {incubator: {protocol: github}, kubeflow: {}}\nlibraries: {tf-serving: {}}\n",
    )
    app.environment("prod", "")
    read = app.read()
    assert read.components == {"train": {}, "extra": {}}
    assert read.notes == [
        "The registries of app.yaml are not taken over: incubator, kubeflow.",
        "The libraries of app.yaml are not taken over: tf-serving.",
        "The global params of components/params.libsonnet are not taken over: group.",
        "The manifests in components/ are not taken over: extra.yaml, train.jsonnet.",
        "The targets of environment prod are not taken over: train, sub; it has every component.",
        "The libraries of environment prod are not taken over: kubeflow/core.",
    ]


def test_modules_are_noted_and_their_params_left_out(app: App) -> None:
    app.write("components/nested/params.libsonnet", "{components: {extra: {a: 1}}}")
    app.environment("prod", "'nested.extra'+: { a: 2 }, 'v1.5': { b: 3 },")
    assert app.params() == {"v1.5": {"b": 3}}
    assert app.read().notes == [
        "The module components/nested is not taken over, nor are its params.",
        "The params of nested.extra in environment prod are of a module: not taken over.",
        "Component v1.5 is only in environment prod.",
    ]


def test_environments_of_the_oldest_apps_are_their_folders(app: App) -> None:
    app.write("app.yaml", "apiVersion: 0.0.1\nkind: ksonnet.io/app\nname: old\n")
    app.write("environments/prod/spec.json", json.dumps({"server": "https://a", "namespace": "b"}))
    app.environment("us-west/staging", "train+: { numPs: 1 },", form=OLD_FORM.replace("../../", "../../../"))
    app.write("environments/us-west/staging/spec.json", '{"server": "https://c"}')
    assert [(found.name, found.server, found.namespace) for found in app.read().environments] == [
        ("prod", "https://a", "b"),
        ("us-west/staging", "https://c", "default"),
    ]
    assert app.params("us-west/staging") == {"train": {"numPs": 1}}
    assert app.read().notes == []


def test_a_folder_that_app_yaml_does_not_list_is_an_environment_without_a_cluster(app: App) -> None:
    app.write("app.yaml", "apiVersion: 0.3.0\nkind: ksonnet.io/app\n")
    read = app.read()
    assert read.name == "ks_app"
    [found] = read.environments
    assert (found.name, found.server, found.namespace, found.kubernetes_version) == (
        "prod",
        None,
        "default",
        None,
    )
    assert found.params["train"]["numWorkers"] == 2
    assert read.notes == ["Environment prod is not in app.yaml: its cluster and namespace are unknown."]


def test_the_override_file_adds_and_changes_environments(app: App) -> None:
    app.write(
        "app.override.yaml",
        "apiVersion: 0.1.0\nkind: ksonnet.io/app-override\nenvironments:\n"
        "  mine: {destination: {server: 'https://mine'}, k8sVersion: v1.9.0, path: mine}\n"
        "  prod: {destination: {server: 'https://moved', namespace: moved}, k8sVersion: '', path: ''}\n"
        "  gone: null\n"
        "registries: {own: {protocol: fs}}\n",
    )
    read = app.read()
    assert [(found.name, found.server, found.namespace) for found in read.environments] == [
        ("prod", "https://moved", "moved"),
        ("mine", "https://mine", "default"),
    ]
    assert read.environments[0].kubernetes_version == "v1.11.3"
    assert read.environments[1].params == {}
    assert read.notes == [
        "The registries of app.yaml are not taken over: own.",
        "There is no params.libsonnet for environment mine, so it has no params of its own.",
    ]


def test_an_environments_path_may_differ_from_its_name(app: App) -> None:
    app.write("app.yaml", APP.replace("path: prod", "path: deep/er"))
    (app.root / "environments/prod").rename(app.root / "environments/was")
    (app.root / "environments/deep").mkdir()
    (app.root / "environments/was").rename(app.root / "environments/deep/er")
    assert [found.name for found in app.read().environments] == ["prod"]
    assert app.params()["train"]["numWorkers"] == 2


def test_files_of_the_app_may_be_imported_also_from_vendor(app: App) -> None:
    app.write("components/params.libsonnet", "(import 'sub/more.libsonnet') + {x:: importstr '../name.txt'}")
    app.write("components/sub/more.libsonnet", "import 'lib/params.libsonnet'")
    app.write("vendor/lib/params.libsonnet", "{components: {train: {name: $.x}}}")
    app.write("name.txt", "from a file")
    app.environment("prod", "")
    assert app.read().components == {"train": {"name": "from a file"}}


def test_an_app_without_params_or_environments(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text("apiVersion: 0.2.0\nkind: ksonnet.io/app\nname: bare\n")
    read = read_app(tmp_path)
    assert (read.name, read.components, read.environments) == ("bare", {}, [])
    assert read.notes == ["There is no components/params.libsonnet, so no component has params of its own."]


def test_nothing_is_changed_and_the_working_directory_does_not_matter(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in app.root.rglob("*")}
    assert read_app(Path("ks_app")) == app.read()
    assert {path: path.stat().st_mtime_ns for path in app.root.rglob("*")} == before


# --- what is refused


def test_a_directory_that_is_no_app(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere is not a directory"):
        read_app(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"is no ksonnet app: it has no app\.yaml") as caught:
        read_app(tmp_path)
    assert "fairway import ks_app/" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Deployment\napiVersion: apps/v1", "its kind is 'Deployment'"),
        ("", "its kind is missing"),
        ("- a", "app.yaml is a list, not a mapping"),
        ("a: [", "app.yaml is not YAML or JSON, line 1"),
        ("kind: ksonnet.io/app\napiVersion: 1.0.0", "has the apiVersion '1.0.0'; known are 0.0.1, 0.1.0"),
        ("kind: ksonnet.io/app\napiVersion: 0.3.0\nenvironments: 5", "environments in app.yaml is 5"),
        ("kind: ksonnet.io/app\napiVersion: 0.3.0\nname: {a: b}", "name in app.yaml is a dict"),
        ("a: &a [x]\nb: [*a, *a]", "app.yaml is not YAML or JSON, line 2"),
        ("!!python/object/apply:os.system ['true']", "app.yaml is not YAML or JSON"),
        ("a: 2018-99-99", "app.yaml is not YAML or JSON"),
        ("[" * 5000, "app.yaml is not YAML or JSON"),
        ("\0", "app.yaml is not a text"),
        ("#" * (1 << 20) + "##", "app.yaml is larger than 1,048,576 bytes"),
    ],
    ids=lambda value: value[:20],
)
def test_damaged_app_files(app: App, text: str, message: str) -> None:
    app.write("app.yaml", text)
    assert message in app.refusal().message


@pytest.mark.parametrize("entry", ["../../..", "/etc", "a/../../../.."])
def test_an_environment_outside_of_the_app(app: App, entry: str) -> None:
    app.write("app.yaml", APP.replace("path: prod", f"path: {entry}"))
    assert "lies outside" in app.refusal().message


def test_an_environments_name_that_climbs(app: App) -> None:
    app.write("app.yaml", APP.replace("prod:", "../prod:"))
    assert "'../prod' in app.yaml is no name for an environment" in app.refusal().message


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("{ components: ", 'components/params.libsonnet, line 1, column 15: syntax error at "EOF"'),
        ("{ components: { a: { b: error 'x\\n\\u001b[2J' } } }", "line 1, column 25: runtime error: x"),
        ("{ components: { a: { b: nope } } }", "variable is not defined: nope"),
        ("{ components: { a: { b: {}.c } } }", "components/params.libsonnet: no such field: c"),
        ("std.extVar('other')", "external variable is not defined: other"),
        ("import 'gone.libsonnet'", "gone.libsonnet is imported in components/, but is not there"),
        ("import 'params.libsonnet'", "components/params.libsonnet"),
        ("[]", "components/params.libsonnet is a list, not a mapping"),
        ("{ components: [] }", "components in components/params.libsonnet is a list"),
        ("{ components: { train: 5 } }", "component train in components/params.libsonnet is 5"),
        ("{ components: { train: { n: 1e400 } } }", "has a value that JSON cannot express"),
        ("import '../../secret'", "lies outside of"),
        ("importstr '../../secret'", "lies outside of"),
        ("importstr '/etc/hostname'", "/etc/hostname lies outside of"),
        ("import 'link.libsonnet'", "lies outside of"),
        ("import 'folder/..'", "components is not a file"),
        ("import 'a\\u0000b'", "is no path"),
        ("[" * 20000, "nested too deeply"),
        ("local f(x) = f(x + 1) + 1; f(0)", "stack overflow"),
        ("local f(x) = f(x + 1) tailstrict; f(0)", "nested too deeply or takes more than 1,024 MiB"),
        ("{ components: std.repeat('x', 3000000000) }", "takes more than 1,024 MiB"),
        ("{ components: { a: { b: std.repeat('x', 5000000) } } }", "a value of more than 4,194,304 bytes"),
    ],
    ids=lambda value: value[:30],
)
def test_damaged_or_hostile_params(app: App, code: str, message: str) -> None:
    (app.root.parent / "secret").write_text("{components: {train: {password: 'x'}}}")
    (app.root / "components/folder").mkdir()
    (app.root / "components/link.libsonnet").symlink_to(app.root.parent / "secret")
    app.write("components/params.libsonnet", code)
    refused = app.refusal().message
    assert message in refused
    assert refused.isprintable()
    assert "password" not in refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is not a text in UTF-8"),
        (b"{}\0", "null bytes"),
        (b" " * ((1 << 20) + 1), "is larger"),
    ],
)
def test_binary_and_oversized_params(app: App, content: bytes, message: str) -> None:
    (app.root / "components/params.libsonnet").write_bytes(content)
    assert message in app.refusal().message


def test_an_environments_error_names_its_file(app: App) -> None:
    app.environment("prod", "train+: { nope },")
    assert app.refusal().message.startswith("environments/prod/params.libsonnet, line 6, column")
    app.environment("prod", "", global_params="{ a: }")
    assert app.refusal().message.startswith("environments/prod/globals.libsonnet, line 1")
    (app.root / "environments/prod/globals.libsonnet").unlink()
    assert "globals.libsonnet is imported in environments/prod/" in app.refusal().message


def test_the_app_of_a_loop_without_end(app: App) -> None:
    loop = "std.foldl(function(a, x) std.length(std.range(0, 1000)), std.range(0, 2000000000), 0)"
    path = app.write("components/params.libsonnet", loop)
    with Evaluator(app.root, cpu_s=1) as evaluator:
        with pytest.raises(DataError, match=r"components/params\.libsonnet takes more than 1 seconds"):
            evaluator.evaluate(path)
        # The next file gets a new process.
        assert evaluator.evaluate(app.write("next.libsonnet", "{a: 1.0}")) == {"a": 1}


def test_no_process_is_left(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    popen = subprocess.Popen

    def record(*args: Any, **options: Any) -> Any:
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", record)
    app.read()
    app.write("components/params.libsonnet", "[" * 20000)
    app.refusal()
    assert [process.returncode is not None for process in started] == [True, True]


def test_without_rjsonnet_the_extra_is_named(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rjsonnet", None)
    refused = app.refusal()
    assert refused.message == "reading a ksonnet app needs rjsonnet, which is not installed"
    assert refused.hint == "Install it with: pip install 'fairway[ksonnet]'"
