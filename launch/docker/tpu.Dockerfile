# retfound on Cloud TPUs: libtpu comes with JAX.
#   docker build --file launch/docker/tpu.Dockerfile --tag REGISTRY/retfound:1.0-tpu .
# Every package is held to a version and a hash by tpu.lock (how it is renewed: BUILD.md, Releasing); gs:// is in, s3:// is not. linux/amd64.

FROM python:3.12.12-slim-bookworm@sha256:593bd06efe90efa80dc4eee3948be7c0fde4134606dd40d8dd8dbcade98e669c AS build
WORKDIR /build
COPY launch/docker/build.lock launch/docker/tpu.lock ./
# One package has no wheel and is built by the setuptools of build.lock; all others are wheels.
RUN python -m venv --without-pip /opt/retfound \
    && pip --python /opt/retfound/bin/python install --no-cache-dir --require-hashes --only-binary :all: --requirement build.lock \
    && pip --python /opt/retfound/bin/python install --no-cache-dir --require-hashes --only-binary :all: --no-binary promise \
        --no-build-isolation --requirement tpu.lock
COPY setup.py pyproject.toml README.md LICENSE ./
COPY retfound_jax retfound_jax
COPY experiments experiments
RUN pip --python /opt/retfound/bin/python install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.12.12-slim-bookworm@sha256:593bd06efe90efa80dc4eee3948be7c0fde4134606dd40d8dd8dbcade98e669c
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin retfound
COPY --from=build /opt/retfound /opt/retfound
ENV PATH=/opt/retfound/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    JAX_PLATFORMS=tpu,cpu
# The root file system may be read-only: what is written goes to /tmp, to volumes or to an object store.
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["retfound"]
