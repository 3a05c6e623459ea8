# The migration image: an installed wheel, run as uid 1001. It writes nothing to its file system.
#
#   docker build --tag ragschema .
#   docker run --rm --env DATABASE_URL ragschema               rag migrate status
#   docker run --rm --env DATABASE_URL ragschema --to head     the upgrade

FROM python:3.11-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY alembic alembic
COPY src src
RUN uv build --wheel --out-dir /wheels
# Run beside pyproject.toml, whose exclude-newer makes this the resolution that the tests ran with.
# Bytecode is compiled here: uid 1001 may not write it.
RUN uv venv --python /usr/local/bin/python3 /opt/ragschema
RUN uv pip install --python /opt/ragschema --no-cache --compile-bytecode /wheels/*.whl

FROM python:3.11-slim
RUN pip uninstall --yes --root-user-action ignore setuptools wheel pip \
    && groupadd --gid 1001 rag \
    && useradd --uid 1001 --gid 1001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin rag
COPY --from=build /opt/ragschema /opt/ragschema
ENV PATH=/opt/ragschema/bin:$PATH
USER 1001:1001
ENTRYPOINT ["rag", "migrate"]
CMD ["status"]
