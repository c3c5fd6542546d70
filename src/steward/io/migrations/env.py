"""Alembic's entry point: migrates the connection that `steward.io.ledger` hands over."""

from alembic import context


def migrate() -> None:
    context.configure(connection=context.config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()


if __name__ == "env_py":  # the name under which Alembic runs this file; anything else only looks at it
    migrate()
