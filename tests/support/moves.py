"""Records the moves between states that Postgres sees."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Engine, text

from ponder.domain.state import LEGAL_MOVES, BatchState, IncarnationState, JobState, PilotState, ShardState

_TABLES: dict[str, type[StrEnum]] = {
    "batches": BatchState,
    "jobs": JobState,
    "shards": ShardState,
    "incarnations": IncarnationState,
    "pilots": PilotState,
}
Move = tuple[type[StrEnum], str, str]
LEGAL: set[Move] = {
    (kind, source, target)
    for kind, table in LEGAL_MOVES.items()
    for source, targets in table.items()
    for target in targets
}


def watch_moves(engine: Engine) -> None:
    """Records every change of a state from now on."""
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE moves (kind text, source text, target text, UNIQUE (kind, source, target))")
        )
        connection.execute(
            text("""
                CREATE FUNCTION keep_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    INSERT INTO moves VALUES (TG_TABLE_NAME, OLD.state, NEW.state) ON CONFLICT DO NOTHING;
                    RETURN NULL;
                END $$
            """)
        )
        for table in _TABLES:
            connection.execute(
                text(
                    f"CREATE TRIGGER keep_move AFTER UPDATE ON {table} FOR EACH ROW"
                    " WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION keep_move()"
                )
            )


def moves(engine: Engine) -> set[Move]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT kind, source, target FROM moves"))
        return {(_TABLES[row.kind], row.source, row.target) for row in rows}
