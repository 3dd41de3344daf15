# penstock's image: one for workers, couriers, the web, migrations. Guide: docs/guides/containers.md.
# Build it with:  docker build --tag penstock .
#
# The Python is the one that the tests run on. A tag can be moved by its registry; name the digest
# that yours answers to make a build repeatable:
#   docker build --build-arg BASE=python:3.11.14-slim-bookworm@sha256:... --tag penstock .
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements.lock requirements-build.lock ./
# Libraries first: they change less often than the code, so this layer is kept. No source archive
# is ever built here: what has no wheel for this platform fails.
RUN python -m venv --without-pip /opt/penstock
RUN python -m pip --python /opt/penstock/bin/python install \
    --no-compile --no-deps --only-binary :all: --require-hashes --requirement requirements.lock
RUN python -m pip install \
    --no-compile --no-deps --only-binary :all: --require-hashes --requirement requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY tools/kafka tools/kafka
COPY contracts contracts
COPY src src
RUN python -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir wheels .
RUN python -m pip --python /opt/penstock/bin/python install \
    --no-compile --no-deps --no-index --find-links wheels penstock
# Nothing is compiled at run time: the root is read-only there. Unchecked, for layers have no
# mtimes worth comparing.
RUN python -m compileall -q -f --invalidation-mode unchecked-hash /opt/penstock/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="penstock" \
      org.opencontainers.image.description="An event-driven order pipeline, and the platform that keeps it healthy" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/penstock /opt/penstock
# The home folder. On a cluster it is scratch; alone (`up`) it holds everything: mount a volume.
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/penstock
ENV PATH=/opt/penstock/bin:/usr/local/bin:/usr/bin:/bin \
    PENSTOCK_HOME=/var/lib/penstock \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/penstock
USER 10001:10001
EXPOSE 8080 9100
# No HEALTHCHECK: the same image runs what answers on 8080, what answers on 9100 and what ends by
# itself; whoever starts one knows which.
ENTRYPOINT ["penstock"]
CMD ["--help"]
