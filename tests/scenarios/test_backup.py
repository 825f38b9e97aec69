"""A dump that is made while everything works is one moment of it: restored, the books balance, and the gateway goes on from there."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gateway.store.books import read_books
from gateway.store.migrate import status
from gateway.store.pool import connect
from gateway.store.postgres_binaries import ENVIRONMENT, find_bin_dir
from tests.support.fleet import Fleet
from tests.support.postgres import Cluster


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [find_bin_dir() / program, *arguments], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


async def test_a_dump_of_a_working_gateway_restores_to_books_that_balance(
    cluster: Cluster, db: str, tmp_path: Path
) -> None:
    dump = str(tmp_path / "gateway.dump")
    async with Fleet(db, tmp_path, sink_options=("--delay-ms", "10")) as fleet:
        await fleet.submit(1_500, domains=10)
        await fleet.start("here")
        await fleet.taken(200)
        _run("pg_dump", "--format=custom", "--file", dump, "--dbname", db)
        await fleet.settled()
    restored = await cluster.create_database(empty=True)
    _run("pg_restore", "--exit-on-error", "--dbname", restored, dump)
    connection = await connect(restored)
    try:
        assert (await status(connection)).complaint() == ""
        books = await read_books(connection, deep=True)
        assert not books.faults()
        assert books.overall.accepted == 1_500
        assert books.overall.count("delivered") < 1_500, "it was made in the middle"
    finally:
        await connection.close()
        await cluster.drop_database(restored)
