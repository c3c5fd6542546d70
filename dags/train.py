"""`<model>.train` for every model file: an Airflow DAG that trains, verifies and promotes."""

from steward.airflow_tasks import train_dags

globals().update(train_dags())
