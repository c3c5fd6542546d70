"""How long the service's requests took, by model and hour."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "latencies",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
    )
