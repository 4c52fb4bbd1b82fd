"""Components as people set them up, by the name of the golden file with their manifests."""

from __future__ import annotations

from typing import Any

from fairway.deploy.components import KINDS
from fairway.deploy.components.base import Placement
from fairway.deploy.params import list_params, read_value
from fairway.deploy.resources import Manifest

NAMESPACE = "mnist"
COMPONENTS = {"train": "train", "serving": "mnist-deploy", "web-ui": "web-ui"}
"""What components are called where it is not what their kind is."""

PVC = {"modelDir": "/mnt", "exportDir": "/mnt/export", "pvcName": "mnist-model"}
S3 = {
    "modelDir": "s3://models/mnist",
    "exportDir": "s3://models/mnist/export",
    "secretKeyRefs": "AWS_ACCESS_KEY_ID=aws-creds.awsAccessKeyID,"
    "AWS_SECRET_ACCESS_KEY=aws-creds.awsSecretAccessKey",
    "envVariables": "S3_ENDPOINT=minio:9000,S3_USE_HTTPS=0,S3_VERIFY_SSL=0,AWS_REGION=us-west-2",
}
GS = {
    "modelDir": "gs://models/mnist",
    "exportDir": "gs://models/mnist/export",
    "secret": "user-gcp-sa=/var/secrets",
    "envVariables": "GOOGLE_APPLICATION_CREDENTIALS=/var/secrets/user-gcp-sa.json",
}
STORAGES = {"pvc": PVC, "s3": S3, "gs": GS}
TASKS: dict[str, dict[str, Any]] = {
    "chief": {"trainSteps": 200},
    "workers": {"trainSteps": 200, "batchSize": 100, "learningRate": 0.01, "numWorkers": 2},
    "ps": {"numWorkers": 2, "numPs": 1, "evaluator": True, "numGpus": 1},
}
LAUNCHERS = ("tfjob", "job", "jobset")
EVERYTHING = {
    **PVC,
    "numWorkers": 1,
    "modelType": "linear",
    "augment": False,
    "dataset": "mnist",
    "dataUrl": "http://mirror.example/mnist",
    "dataDir": "/mnt/data",
    "keep": 3,
    "image": "registry.example/fairway-train:1",
    "imagePullSecret": "registry",
    "cpu": "1",
    "cpuLimit": "4",
    "memory": "2Gi",
    "memoryLimit": "4Gi",
    "nodeSelector": "disk=ssd",
    "tolerations": "gpu=yes:NoSchedule,spot:NoExecute",
    "serviceAccount": "trainer",
    "secret": "keys=/secret/keys",
    "envVariables": "MESSAGE=one\\, two,PRICE=$(NOT_A_VARIABLE)",
    "activeDeadlineSeconds": 3600,
    "ttlSecondsAfterFinished": 600,
    "backoffLimit": 3,
    "restartPolicy": "OnFailure",
    "networkPolicy": False,
}

SERVING: dict[str, dict[str, Any]] = {
    "gcp": {
        "storage": "gcp",
        "modelBasePath": "gs://models/mnist/export",
        "gcpCredentialSecretName": "user-gcp-sa",
    },
    "aws": {
        "storage": "aws",
        "modelBasePath": "s3://models/mnist/export",
        "s3Enable": True,
        "s3SecretName": "aws-creds",
        "s3SecretAccesskeyidKeyName": "awsAccessKeyID",
        "s3SecretSecretaccesskeyKeyName": "awsSecretAccessKey",
        "s3AwsRegion": "us-west-2",
        "s3Endpoint": "minio:9000",
        "s3UseHttps": False,
        "s3VerifySsl": False,
    },
    "pvc": {"storage": "pvc", "modelBasePath": "/mnt/export", "pvcName": "mnist-model"},
    "local": {"storage": "local", "modelBasePath": "/models/mnist"},
}
SERVERS = ("fairway", "tensorflow-serving")
SCALED = {
    **SERVING["pvc"],
    "replicas": 2,
    "maxReplicas": 5,
    "targetCpu": 60,
    "labels": "track=canary",
    "clients": "role=client",
    "gateway": "gateways/public",
}
WEB = {"service": "mnist-service", "modelName": "mnist", "dataset": "auto"}
FRONTS = {
    "pvc": PVC,
    "s3": S3,
    "gateway": {**S3, "gateway": "gateways/public", "hostname": "mnist.example"},
    "proxies": {**S3, "gateway": "public", "gatewayNamespace": "envoy-gateway-system"},
}


def _board(params: dict[str, Any]) -> dict[str, Any]:
    return {"logDir" if name == "modelDir" else name: v for name, v in params.items() if name != "exportDir"}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "storage": ("storage", {}),
    "storage-shared": ("storage", {"size": "10Gi", "accessMode": "ReadWriteMany", "storageClass": "nfs"}),
    **{
        f"train-{launcher}-{place}-{tasks}": (
            "train",
            {"launcher": launcher, **STORAGES[place], **TASKS[tasks]},
        )
        for launcher in LAUNCHERS
        for place in STORAGES
        for tasks in TASKS
    },
    **{
        f"train-{launcher}-everything": ("train", EVERYTHING | more | {"launcher": launcher})
        for launcher, more in {"tfjob": {"cleanPodPolicy": "All"}, "job": {}, "jobset": {}}.items()
    },
    **{
        f"serving-{place}-{server}": ("serving", {"server": server, **SERVING[place]})
        for place in SERVING
        for server in SERVERS
    },
    "serving-fixed": ("serving", SERVING["pvc"] | {"replicas": 3, "serviceType": "NodePort"}),
    "serving-scaled": ("serving", SCALED),
    "mnist-service": ("mnist-service", {}),
    "mnist-service-gateway": ("mnist-service", {"gateway": "public", "serviceType": "NodePort"}),
    "mnist-service-versions": (
        "mnist-service",
        {"gateway": "gateways/public", "hostname": "mnist.example", "trafficRule": "v1:90,v2:10"},
    ),
    "mnist-service-labels": (
        "mnist-service",
        {"gateway": "public", "trafficRule": "track=stable:90,track=canary:10"},
    ),
    **{f"tensorboard-{place}": ("tensorboard", _board(params)) for place, params in FRONTS.items()},
    **{f"web-ui-{place}": ("web-ui", WEB | params) for place, params in FRONTS.items()},
    "web-ui-node-port": ("web-ui", WEB | {"type": "NodePort", "replicas": 2, "dataDir": "s3://data/mnist"}),
}


def build(kind: str, /, **written: Any) -> list[Manifest]:
    """Return the manifests of a component from params as somebody wrote them."""
    params, component = KINDS[kind].params, COMPONENTS.get(kind, kind)
    known = list_params(params)
    read = {known[name].field: read_value(params, name, value, component) for name, value in written.items()}
    return KINDS[kind].build(params(**read), Placement("mnist", "dev", NAMESPACE, component, kind))


def build_case(name: str) -> list[Manifest]:
    """Return the manifests of a case."""
    kind, params = CASES[name]
    return build(kind, **params)
