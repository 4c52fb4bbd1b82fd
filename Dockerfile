# Two images that differ in their packages: `serve` (model server, web UI, TensorBoard, sync; without TensorFlow)
# and `train`. Built by `fairway image build` or `make image`, with any builder; see docs/how-to/images.md.
ARG BASE=python:3.11-slim-bookworm

# An empty virtual environment. It has no pip, so the base's installs into it.
FROM ${BASE} AS venv
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /opt/fairway
COPY requirements/slim.sh /usr/local/bin/

# fairway alone, in /fairway/opt/fairway: a changed line then changes a small layer of the images.
FROM venv AS fairway
COPY requirements/build.lock /build/
RUN python3 -m venv --without-pip /build/venv \
    && pip --python /build/venv install --quiet --require-hashes -r /build/build.lock
COPY pyproject.toml README.md LICENSE /build/
COPY src /build/src
RUN pip --python /build/venv wheel --quiet --no-deps --no-build-isolation --wheel-dir /build/wheel /build \
    && pip --python /opt/fairway install --quiet --no-index --no-deps --no-warn-script-location --root /fairway /build/wheel/*.whl

FROM venv AS serve-packages
COPY requirements/serve.lock requirements/samples.lock /build/
RUN pip --python /opt/fairway install --quiet --require-hashes -r /build/serve.lock \
    && pip --python /opt/fairway install --quiet --require-hashes --no-deps -r /build/samples.lock \
    && slim.sh

# What both images have in common. Only /tmp is written to; so the root file system can be read-only.
FROM ${BASE} AS base
RUN groupadd --gid 10001 fairway \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin fairway
ENV PATH=/opt/fairway/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/tmp/.cache PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
ENTRYPOINT ["fairway"]

FROM base AS serve
COPY --from=serve-packages /opt/fairway /opt/fairway
COPY --from=fairway /fairway/opt/fairway /opt/fairway

# Below `serve`: the classic builder builds all that stands above the target.
FROM venv AS train-packages
COPY requirements/train.lock requirements/samples.lock /build/
RUN pip --python /opt/fairway install --quiet --require-hashes -r /build/train.lock \
    && pip --python /opt/fairway install --quiet --require-hashes --no-deps -r /build/samples.lock \
    && slim.sh

FROM base AS train
COPY --from=train-packages /opt/fairway /opt/fairway
COPY --from=fairway /fairway/opt/fairway /opt/fairway
