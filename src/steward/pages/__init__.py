"""Steward's web pages: what stands on record as people look at it, and what they may do from there.

A FastAPI application without Airflow in it. Whoever serves it brings a gate, which knows who is asking and what they may
see and do, and an orchestrator, which runs DAGs and holds the questions that wait for a person.
"""
