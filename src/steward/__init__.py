"""Steward keeps tabular models in production honest and current."""

__version__ = "0.1.0"
