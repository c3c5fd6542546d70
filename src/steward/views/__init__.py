"""What Steward's pages and `steward status` show: frozen read models, made from the ledger and the prediction log.

Plain values, aware datetimes and sentences; no HTML, no Airflow, no MLflow. One function per page.
"""
