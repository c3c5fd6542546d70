"""Schema versions of the ledger, run by Alembic on first use."""
