"""The table of entries and the triggers that keep it append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SQLITE = (
    "CREATE TRIGGER entries_no_{verb} BEFORE {VERB} ON entries "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
)
SQLITE_NO_REPLACE = """
CREATE TRIGGER entries_no_replace BEFORE INSERT ON entries
WHEN EXISTS (
  SELECT 1 FROM entries WHERE sequence = NEW.sequence OR previous = NEW.previous OR digest = NEW.digest
    OR (model = NEW.model AND kind = NEW.kind AND subject = NEW.subject)
)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
"""
POSTGRESQL_FUNCTION = """
CREATE FUNCTION entries_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$
"""
POSTGRESQL = (
    "CREATE TRIGGER entries_no_{verb} BEFORE {VERB} ON entries FOR EACH STATEMENT EXECUTE FUNCTION entries_refuse()"
)


def upgrade() -> None:
    op.create_table(
        "entries",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("previous", sa.Text, nullable=False, unique=True),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.UniqueConstraint("model", "kind", "subject", name="entries_subject"),
    )
    if op.get_bind().dialect.name == "sqlite":
        guards = [SQLITE_NO_REPLACE, *(SQLITE.format(verb=verb, VERB=verb.upper()) for verb in ("update", "delete"))]
    else:
        verbs = ("update", "delete", "truncate")
        guards = [POSTGRESQL_FUNCTION, *(POSTGRESQL.format(verb=verb, VERB=verb.upper()) for verb in verbs)]
    for statement in guards:
        op.execute(statement)
