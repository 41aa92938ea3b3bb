# One image for every service; EXTRAS chooses how much of it is installed: server, worker or gpu.
FROM python:3.12-slim
ARG EXTRAS=server

# The engine compiles its CPU steps at first use.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 ponder
WORKDIR /srv/ponder
COPY pyproject.toml constraints.txt README.md LICENSE alembic.ini ./
COPY platform platform
COPY gpu_worker gpu_worker
COPY kernels kernels
COPY migrations migrations
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

USER ponder
ENV PONDER_HOME=/home/ponder/.ponder PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE
# SIGTERM reaches ponder itself, so that a worker can hand its jobs on.
ENTRYPOINT ["ponder"]
CMD ["--help"]
