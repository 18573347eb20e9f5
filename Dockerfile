# The sidecar and the command, as an unprivileged user on a read-only root file system. See docs/deploy/image.md.
#
# Every dependency is pinned, with its hashes, in requirements.lock (`make lock` writes it anew). The base can be
# pinned too: --build-arg PYTHON=python:3.13-slim-trixie@sha256:…
# A pip configuration (a mirror, its CA) may be handed in, and lands in no layer:
#   docker build --secret id=pip,src=pip.conf --secret id=ca,src=ca.pem .
ARG PYTHON=python:3.13-slim-trixie

FROM ${PYTHON} AS build
ARG SOURCE_DATE_EPOCH=1767225600
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock ./
# pip and setuptools stay in /build; what they make goes into a venv that has neither.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    python3 -m venv /build \
    && sed -n '/^setuptools==/,/[^\\]$/p' requirements.lock > build.lock \
    && /build/bin/pip install --quiet --require-hashes -r build.lock \
    && /build/bin/pip wheel --quiet --require-hashes --no-deps --no-build-isolation -w /wheels -r requirements.lock \
    && rm /wheels/setuptools-*.whl
COPY pyproject.toml README.md LICENSE ./
COPY configstore configstore
COPY sidecar sidecar
# The byte code is made here, once, for a root file system that nobody writes to: checked against no clock, the
# standard library's as well, of which the base has none.
RUN /build/bin/pip wheel --quiet --no-index --no-deps --no-build-isolation -w /wheels . \
    && python3 -m venv --without-pip /opt/configstore \
    && /build/bin/pip --python /opt/configstore/bin/python3 install --quiet --no-index --no-deps --no-compile /wheels/*.whl \
    && rm -rf /opt/configstore/bin/[aA]ctivate* /opt/configstore/include /opt/configstore/.gitignore \
        /opt/configstore/lib/python3*/site-packages/google/protobuf/testdata \
    && PYTHONHASHSEED=0 PYTHONPYCACHEPREFIX=/opt/configstore/pyc /opt/configstore/bin/python3 -OO -m compileall -q \
        --invalidation-mode unchecked-hash -x '/(test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|pydoc_data)/' \
        "$(python3 -c 'import os; print(os.path.dirname(os.__file__))')" /opt/configstore/lib \
    && mkdir -p /image/opt /image/run /image/var/lib \
    && mv /opt/configstore /image/opt/ \
    && install -d -m 0700 -o 1000 -g 1000 /image/run/configstore /image/var/lib/configstore \
    && find /image -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

FROM ${PYTHON}
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="configstore" \
      org.opencontainers.image.description="Mirrors a mail platform's small files between tmpfs and etcd" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# /opt/configstore, and two directories whose owner and mode a new volume that is mounted there takes over:
# /run/configstore for the control socket, /var/lib/configstore for what a sidecar remembers.
COPY --from=build /image /
# Without docstrings a sidecar takes one MiB less.
ENV PATH=/opt/configstore/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONOPTIMIZE=2 \
    PYTHONPYCACHEPREFIX=/opt/configstore/pyc \
    PYTHONUNBUFFERED=1
USER 1000:1000
# 9650: /livez /readyz /metrics, with CONFIGSTORE_HEALTH_LISTEN=0.0.0.0:9650
EXPOSE 9650
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["configstore-sidecar", "health"]
ENTRYPOINT ["configstore-sidecar"]
CMD ["run"]
