"""No DAG: shows broken model files as one import error in Airflow, and leaves the DAGs of the others alone."""

from steward.airflow_tasks import refuse_broken_model_files

refuse_broken_model_files()
