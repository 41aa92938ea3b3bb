"""The record that Postgres itself keeps of a run: triggers preserve what ponder's own tables overwrite or delete."""

from __future__ import annotations

from sqlalchemy import Connection, text

_TRAIL = """
    CREATE SCHEMA trail;
    CREATE TABLE trail.moves (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job_id bigint NOT NULL, was text NOT NULL,
        became text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE INDEX ON trail.moves (at);
    CREATE TABLE trail.deltas (
        id bigint PRIMARY KEY, job_id bigint NOT NULL, incarnation_id text NOT NULL, delta json NOT NULL);
    CREATE INDEX ON trail.deltas (job_id, id);

    CREATE FUNCTION trail.write_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO trail.moves (job_id, was, became) VALUES (new.id, old.state, new.state);
        RETURN NULL;
    END $$;
    CREATE FUNCTION trail.write_delta() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO trail.deltas VALUES (new.id, new.job_id, new.incarnation_id, new.delta);
        RETURN NULL;
    END $$;
    CREATE TRIGGER write_move AFTER UPDATE OF state ON jobs FOR EACH ROW EXECUTE FUNCTION trail.write_move();
    CREATE TRIGGER write_delta AFTER INSERT ON tree_deltas FOR EACH ROW EXECUTE FUNCTION trail.write_delta();
"""


def lay_trail(connection: Connection) -> None:
    """`trail.moves`: every write of a job's state. `trail.deltas`: every delta of a tree that was ever saved."""
    connection.execute(text(_TRAIL))
