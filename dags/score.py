"""`<model>.score` for every model file: an Airflow DAG that asks the champion about every row of a table."""

from steward.airflow_tasks import score_dags

globals().update(score_dags())
