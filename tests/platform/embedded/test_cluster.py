from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from ponder.embedded.postgres import EmbeddedPostgres
from ponder.store.engine import connect


def test_a_half_made_cluster_is_made_again_and_a_whole_one_is_kept(home: Path) -> None:
    draft = home / "postgres.draft"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")  # what a killed initdb leaves
    with EmbeddedPostgres(home) as server:
        engine = connect(server.url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE kept (id int)"))
        engine.dispose()
    assert not draft.exists()
    with EmbeddedPostgres(home) as server:
        engine = connect(server.url)
        with engine.begin() as connection:
            connection.execute(text("SELECT id FROM kept"))
        engine.dispose()
