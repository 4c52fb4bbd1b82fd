"""docs/tutorial/cluster.md has the commands of the 2019 tutorial word for word, `ks` replaced by `fairway`.

Those of its local storage and S3 parts are listed here as facts. Left out are example values
(`export …=xxxxx`), the GCS parts, and the namespace of its author (`kubectl -n jlewi`). The source:
https://github.com/kubeflow/examples/blob/335c2a1d6e501aafefa36eddd7f53cd6552b6600/mnist/README.md
"""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "tutorial" / "cluster.md"
LOCAL = r"""
KSENV=local
cd ks_app
ks env add ${KSENV}
ks param set --env=${KSENV} train name mnist-train-local
ks param set --env=${KSENV} train image $DOCKER_URL
ks param set --env=${KSENV} train pvcName ${PVC_NAME}
ks param set --env=${KSENV} train modelDir /mnt
ks param set --env=${KSENV} train exportDir /mnt/export
ks apply ${KSENV} -c train
kubectl get tfjobs -o yaml mnist-train-local
kubectl logs mnist-train-local-chief-0
ks param set --env=${KSENV} mnist-deploy-local pvcName ${PVC_NAME}
ks param set --env=${KSENV} mnist-deploy-local modelBasePath /mnt/export
ks apply ${KSENV} -c mnist-deploy-local
kubectl describe deployments mnist-deploy-local
ks apply ${KSENV} -c mnist-service
kubectl describe service mnist-service
ks apply ${KSENV} -c web-ui
POD_NAME=$(kubectl get pods --selector=app=web-ui --template '{{range .items}}{{.metadata.name}}{{"\n"}}{{end}}')
kubectl port-forward ${POD_NAME} 8080:5000
"""  # noqa: E501
S3 = r"""
KSENV=distributed
cd ks_app
ks env add ${KSENV}
ks param set --env=${KSENV} train name mnist-train-dist
ks param set --env=${KSENV} train numPs 1
ks param set --env=${KSENV} train numWorkers 2
ks param set --env=${KSENV} train modelDir ${S3_MODEL_PATH_URI}
ks param set --env=${KSENV} train exportDir ${S3_MODEL_EXPORT_URI}
kubectl create secret generic aws-creds --from-literal=awsAccessKeyID=${AWS_ACCESS_KEY_ID} \
  --from-literal=awsSecretAccessKey=${AWS_SECRET_ACCESS_KEY}
ks param set --env=${KSENV} train secretKeyRefs AWS_ACCESS_KEY_ID=aws-creds.awsAccessKeyID,AWS_SECRET_ACCESS_KEY=aws-creds.awsSecretAccessKey
ks show ${KSENV} -c train
AWSENV="S3_ENDPOINT=${S3_ENDPOINT}"
AWSENV="${AWSENV},AWS_ENDPOINT_URL=${AWS_ENDPOINT_URL}"
AWSENV="${AWSENV},AWS_REGION=${AWS_REGION}"
AWSENV="${AWSENV},BUCKET_NAME=${BUCKET_NAME}"
AWSENV="${AWSENV},S3_USE_HTTPS=${S3_USE_HTTPS}"
AWSENV="${AWSENV},S3_VERIFY_SSL=${S3_VERIFY_SSL}"
ks param set --env=${KSENV} train envVariables ${AWSENV}
ks show ${KSENV} -c train
ks apply ${KSENV} -c train
kubectl get tfjobs -o yaml mnist-train-dist
kubectl logs -f mnist-train-dist-chief-0
LOGDIR=s3://${BUCKET}/${MODEL_PATH}
ks param set tensorboard --env=${KSENV} logDir ${LOGDIR}
ks param set --env=${KSENV} tensorboard secretKeyRefs AWS_ACCESS_KEY_ID=aws-creds.awsAccessKeyID,AWS_SECRET_ACCESS_KEY=aws-creds.awsSecretAccessKey
ks show ${KSENV} -c tensorboard
AWSENV="S3_ENDPOINT=${S3_ENDPOINT}"
AWSENV="${AWSENV},AWS_ENDPOINT_URL=${AWS_ENDPOINT_URL}"
AWSENV="${AWSENV},AWS_REGION=${AWS_REGION}"
AWSENV="${AWSENV},BUCKET_NAME=${BUCKET_NAME}"
AWSENV="${AWSENV},S3_USE_HTTPS=${S3_USE_HTTPS}"
AWSENV="${AWSENV},S3_VERIFY_SSL=${S3_VERIFY_SSL}"
ks param set --env=${KSENV} tensorboard envVariables ${AWSENV}
ks show ${KSENV} -c tensorboard
ks apply ${KSENV} -c tensorboard
port-forward service/tensorboard-tb 8090:80
"""  # noqa: E501


@pytest.mark.parametrize("commands", [LOCAL, S3], ids=["local-storage", "s3"])
def test_commands_are_there_in_their_order(commands: str) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = iter("".join(blocks).splitlines())
    for command in commands.strip().splitlines():
        wanted = re.sub(r"^ks ", "fairway ", command)
        assert any(_is(line, wanted) for line in lines), f"not there, or not after the ones before: {wanted}"


def _is(line: str, wanted: str) -> bool:
    """Return whether a line is a command; the page runs port-forward beside the shell, in any namespace."""
    if "port-forward" in wanted:
        return line.removesuffix(" &").endswith(wanted)
    return line == wanted
