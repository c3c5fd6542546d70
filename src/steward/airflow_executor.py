"""Airflow's LocalExecutor with workers that are born warm.

Every task is a fork of a worker, and a worker is a fork of the scheduler. What the scheduler has imported before it
forks, no task has to import again: on two cores that is the difference between 0.4 s and 3 to 10 s before a task's
first line. The price: a scheduler has to be restarted to see a new version of Steward.
"""

import importlib
import logging
import warnings

from airflow.executors.local_executor import LocalExecutor

WARM = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.providers.standard.operators.hitl",
    "steward.airflow_tasks",
    "steward.pipeline",
    "great_expectations",
    "ibis.backends.duckdb",
    "matplotlib.figure",
    "mlflow.tracking",
    "mlflow.models",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "onnxruntime",
    "pyarrow.parquet",
    "optuna",
    "alembic.command",
    "matplotlib.backends.backend_agg",
    "skl2onnx",
    "skops.io",
)


class WarmExecutor(LocalExecutor):  # type: ignore[misc]
    """Set by `AIRFLOW__CORE__EXECUTOR=steward.airflow_executor.WarmExecutor`."""

    def start(self) -> None:
        with warnings.catch_warnings(action="ignore"):  # skops looks at every attribute of every module, old ones too
            for module in WARM:
                _import(module)
        super().start()


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception:  # the task that needs it will say more
        logging.getLogger(__name__).warning("%s cannot be imported ahead of tasks", module, exc_info=True)
