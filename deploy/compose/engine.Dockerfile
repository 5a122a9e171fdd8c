# vLLM's CPU build with Terrace, and a small real model, all as ./dev makes them. Context: the
# repository's root. Never built: there was no Docker where it was written.
FROM debian:12

RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git python3 \
    && rm -rf /var/lib/apt/lists/*

# Where pip finds torch's CPU build.
ARG PIP_EXTRA_INDEX_URL
ENV TERRACE_CACHE_DIR=/opt/terrace

WORKDIR /src
COPY . .

# Debian packages, the pinned Python environment, the model; then Terrace as a wheel in it.
RUN ./dev setup \
    && ln -s "$(python3 -c 'import json; print(json.load(open("build/env.json"))["venv"])')" /opt/engine \
    && ln -s "$(python3 -c 'import json; print(json.load(open("build/env.json"))["model_float32"])')" /opt/model \
    && /opt/engine/bin/python -m pip install --no-deps --no-build-isolation . \
    && rm -rf build

# Owner, ranks and the bridge run as one user. Volumes take the owner of the folders that they cover.
RUN useradd --create-home --uid 10001 terrace \
    && install --directory --owner terrace --mode 0700 /run/terrace /var/cache/terrace
USER terrace
WORKDIR /home/terrace

ENV HF_HUB_OFFLINE=1 \
    TRANSFORMERS_OFFLINE=1 \
    VLLM_NO_USAGE_STATS=1 \
    DO_NOT_TRACK=1 \
    VLLM_CPU_OMP_THREADS_BIND=nobind

ENTRYPOINT ["/opt/engine/bin/terrace"]
CMD ["doctor"]
