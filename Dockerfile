# The sidecar and the command, as an unprivileged user. Python is pinned to the version that the tests run on most.
#
# A pip configuration (a mirror, a CA) may be handed in: docker build --secret id=pip,src=pip.conf .
ARG PYTHON=python:3.13-slim-trixie

FROM ${PYTHON} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY configstore configstore
COPY sidecar sidecar
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    python3 -m venv /opt/configstore \
    && /opt/configstore/bin/pip install --no-cache-dir --disable-pip-version-check . \
    && /opt/configstore/bin/pip uninstall --yes --quiet pip setuptools

FROM ${PYTHON}
LABEL org.opencontainers.image.title="configstore" \
      org.opencontainers.image.description="Mirrors a mail platform's small files between tmpfs and etcd" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/configstore /opt/configstore
# Without docstrings a sidecar takes one MiB less.
ENV PATH=/opt/configstore/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONOPTIMIZE=2 \
    PYTHONUNBUFFERED=1
USER 1000:1000
# 9650: /livez /readyz /metrics
EXPOSE 9650
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["configstore-sidecar", "health"]
ENTRYPOINT ["configstore-sidecar"]
CMD ["run"]
