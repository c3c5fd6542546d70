"""`<model>.monitor` for every model file: an Airflow DAG that watches the champion and asks for trainings."""

from steward.airflow_tasks import monitor_dags

globals().update(monitor_dags())
