"""What was answered, and what came of it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("prediction_id", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("key", sa.Text),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("prediction", sa.Text, nullable=False),
        sa.Column("confidence", sa.Double),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("control", sa.Boolean, nullable=False),
        sa.Column("fallback", sa.Text),
    )
    op.create_index("predictions_time", "predictions", ["model", "at", "prediction_id"])
    keyed = sa.text("key IS NOT NULL")
    op.create_index("predictions_key", "predictions", ["model", "key"], sqlite_where=keyed, postgresql_where=keyed)
    op.create_table(
        "outcomes",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("observed_at", sa.Double),
        sa.Column("received_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("outcomes_target", "outcomes", ["model", "by", "target"])
