"""An index in which entries are found by model, kind, order and time without reading them."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("entries_found", "entries", ["model", "kind", "sequence", "at"])
