# retfound on NVIDIA GPUs: the CUDA libraries come with JAX, so the host needs a driver for CUDA 13 and the NVIDIA container toolkit.
#   docker build --file launch/docker/gpu.Dockerfile --tag REGISTRY/retfound:1.0-gpu .
# Every package is held to a version and a hash by gpu.lock (how it is renewed: BUILD.md, Releasing); gs:// is in, s3:// is not. linux/amd64.

FROM python:3.12.12-slim-bookworm@sha256:593bd06efe90efa80dc4eee3948be7c0fde4134606dd40d8dd8dbcade98e669c AS build
WORKDIR /build
COPY launch/docker/build.lock launch/docker/gpu.lock ./
# One package has no wheel and is built by the setuptools of build.lock; all others are wheels.
RUN python -m venv --without-pip /opt/retfound \
    && pip --python /opt/retfound/bin/python install --no-cache-dir --require-hashes --only-binary :all: --requirement build.lock \
    && pip --python /opt/retfound/bin/python install --no-cache-dir --require-hashes --only-binary :all: --no-binary promise \
        --no-build-isolation --requirement gpu.lock
COPY setup.py pyproject.toml README.md LICENSE ./
COPY retfound_jax retfound_jax
COPY experiments experiments
RUN pip --python /opt/retfound/bin/python install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.12.12-slim-bookworm@sha256:593bd06efe90efa80dc4eee3948be7c0fde4134606dd40d8dd8dbcade98e669c
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin retfound
COPY --from=build /opt/retfound /opt/retfound
# What the container toolkit hands in: all devices unless the scheduler says which, and no more of the driver than computing needs.
ENV PATH=/opt/retfound/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    JAX_PLATFORMS=cuda,cpu \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# The root file system may be read-only: what is written goes to /tmp, to volumes or to an object store.
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["retfound"]
