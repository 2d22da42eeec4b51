# Doorward, for production: the compiled build (docs/adr/0010); no compiler, no root, no shell needed.
#
#   docker build -t doorward .
#   docker run -p 8080:8080 -v ./routes.yaml:/etc/doorward/routes.yaml:ro -v doorward:/etc/doorward/.doorward doorward
#
# `store.url: embedded` works in it: the image brings Debian's valkey-server. Several gateways share
# a Redis or Valkey of their own instead (docs/operations.md).
# gcc, mypyc and what it reads of types stay in the stage that builds.
FROM python:3.11-slim-trixie AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
WORKDIR /build
COPY requirements.lock requirements-dev.lock ./
RUN python -m venv /opt/doorward \
    && /opt/doorward/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
RUN python -m venv /opt/tools \
    && /opt/tools/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-dev.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY config config
COPY auth auth
COPY gateway gateway
COPY examples examples
RUN DOORWARD_COMPILED=1 /opt/tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/doorward/bin/pip install --no-cache-dir --no-deps --no-index dist/doorward-*.whl

FROM python:3.11-slim-trixie
RUN apt-get update \
    && apt-get install -y --no-install-recommends valkey-server \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /etc/doorward --shell /usr/sbin/nologin doorward \
    && install -d -o doorward -g doorward -m 0750 /etc/doorward \
    && install -d -o doorward -g doorward -m 0700 /etc/doorward/.doorward
COPY --from=build /opt/doorward /opt/doorward
ENV PATH=/opt/doorward/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DOORWARD_LISTEN=0.0.0.0:8080 \
    DOORWARD_ADMIN_LISTEN=127.0.0.1:8081
USER doorward
WORKDIR /etc/doorward
VOLUME /etc/doorward/.doorward
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8081/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["doorward"]
CMD ["run", "--config", "/etc/doorward/routes.yaml"]
