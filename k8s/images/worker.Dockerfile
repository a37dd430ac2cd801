# The worker that measures an engine, without Dagster, database drivers or pandas: `python -m assets.benchmark`.
# It is the layer to put on an engine's own image: set BASE to that image where the worker starts the engine in the same container.
# Build from the repository's root with BuildKit:  docker build -f k8s/images/worker.Dockerfile -t dyno-worker:0.1.0 .
ARG BASE=python:3.12-slim
FROM ${BASE}
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/worker.txt /tmp/worker.txt
# An environment of its own: an engine's image pins versions that must not move. Needs Python >= 3.11 in BASE.
RUN python3 -m venv /opt/worker \
 && /opt/worker/bin/pip install --require-hashes --only-binary :all: -r /tmp/worker.txt \
 && rm /tmp/worker.txt
COPY assets/__init__.py /app/assets/__init__.py
COPY assets/models /app/assets/models
COPY assets/matrix /app/assets/matrix
COPY assets/benchmark /app/assets/benchmark
RUN /opt/worker/bin/python -m compileall -q -j 0 /app
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["/opt/worker/bin/python", "-m", "assets.benchmark"]
