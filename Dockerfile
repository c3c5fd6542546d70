# One image for every piece: Airflow's services, MLflow and Steward's command line.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/steward
COPY requirements.txt /src/
RUN /opt/steward/bin/pip install --quiet --require-hashes --requirement /src/requirements.txt
COPY pyproject.toml README.md /src/
COPY src /src/src
RUN /opt/steward/bin/pip install --quiet --no-deps --no-build-isolation /src

FROM python:3.11.14-slim-bookworm
# libgomp1: scikit-learn and ONNX Runtime; git: the commit on record; tini: reaps what a container's first process should
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 git tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 50000 --create-home --shell /usr/sbin/nologin steward \
    && install --directory --owner steward --group steward /var/lib/steward /var/lib/mlflow /opt/airflow
COPY --from=build /opt/steward /opt/steward
COPY --chown=steward:steward dags /opt/steward-project/dags
COPY --chown=steward:steward plugins /opt/steward-project/plugins
COPY --chown=steward:steward models /opt/steward-project/models
ENV PATH=/opt/steward/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/steward-project/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/steward-project/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    STEWARD_HOME=/var/lib/steward \
    STEWARD_MODELS=/opt/steward-project/models \
    MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /opt/steward-project
USER steward
ENTRYPOINT ["tini", "--"]
CMD ["steward", "--help"]
