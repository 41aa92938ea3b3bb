# The images of ponder; EXTRAS chooses one: server, worker (CPU) or gpu. docs/operations.md shows their sizes and arguments.
ARG EXTRAS=server
ARG PYTHON_IMAGE=python:3.12-slim

# Wheels that are preferred to the index: docker build --build-context wheels=FOLDER. There are none by default.
FROM scratch AS wheels

FROM ${PYTHON_IMAGE} AS python
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src

# Everything that ponder needs, without ponder itself, so that an edit of the sources leaves these layers as they are. Each
# file must be a wheel with a hash in the lock. torch, which has a build for each kind of machine, is pinned by version only.
FROM python AS dependencies
ARG EXTRAS
# Which build of torch: scripts/install.sh says what can be chosen.
ARG TORCH
ARG PIP_INDEX_URL
RUN python -m venv /opt/ponder
COPY constraints.txt ./
COPY requirements requirements
RUN <<END
    set -eu
    case $EXTRAS in gpu) lock=worker ;; *) lock=$EXTRAS ;; esac
    /opt/ponder/bin/pip install --no-deps --only-binary :all: --require-hashes -r "requirements/$lock.txt"
END
RUN --mount=type=bind,source=scripts/install.sh,target=scripts/install.sh --mount=type=bind,from=wheels,target=/wheels <<END
    set -eu
    case $EXTRAS in worker) build=cpu ;; gpu) build=cuda ;; *) exit 0 ;; esac
    export PONDER_TORCH="${TORCH:-$build}" PIP_FIND_LINKS=/wheels
    scripts/install.sh torch /opt/ponder/bin/python
END
RUN /opt/ponder/bin/pip uninstall --yes pip

FROM python AS wheel
ARG PIP_INDEX_URL
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY platform platform
COPY gpu_worker gpu_worker
COPY kernels kernels
RUN pip wheel --no-deps --wheel-dir /dist .

FROM ${PYTHON_IMAGE} AS server
# Folders that volumes are mounted on take their owner from here.
RUN useradd --create-home --uid 10001 ponder \
    && install -d -o ponder -g ponder -m 700 /home/ponder/.cache /home/ponder/.cache/ponder /var/lib/ponder

# A worker compiles its steps at first use: C for the CPU, Triton's launchers for a GPU.
FROM server AS worker
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

FROM worker AS gpu

FROM ${EXTRAS}
COPY --from=dependencies /opt/ponder /opt/ponder
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip --python /opt/ponder/bin/python install --no-cache-dir --no-deps --no-index /dist/*.whl
ARG EXTRAS
ARG VERSION=0.1.0
ARG REVISION
LABEL org.opencontainers.image.title="ponder ${EXTRAS}" \
    org.opencontainers.image.description="Asynchronous batch reasoning" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
USER ponder
WORKDIR /home/ponder
ENV PATH=/opt/ponder/bin:$PATH PONDER_HOME=/home/ponder/.ponder PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE \
    TRITON_CACHE_DIR=/home/ponder/.cache/ponder/triton
# SIGTERM reaches ponder itself, so that a worker can hand its jobs on.
ENTRYPOINT ["ponder"]
CMD ["--help"]
