"""Fixtures and hooks of the whole test run: uvloop, one Postgres server, a fresh database where a test asks for one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import pytest
import uvloop

from gateway.store.pool import open_pool
from tests.support.postgres import Cluster, start_cluster

if TYPE_CHECKING:
    import asyncio

_cleanup = pytest.StashKey[ExitStack]()
_cluster = pytest.StashKey[Cluster | Exception]()


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run async tests on the loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_cleanup] = ExitStack()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_cleanup].close()


def _start(config: pytest.Config) -> Cluster | Exception:
    """The run's cluster, started once; what went wrong is kept, so that tests without a database still run."""
    if _cluster not in config.stash:
        try:
            started = start_cluster(os.environ.get("GATEWAY_TEST_DSN"), config.stash[_cleanup])
        except Exception as error:
            started = error
        config.stash[_cluster] = started
    return config.stash[_cluster]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Start the server in xdist's controlling process, once, and tell each worker where it is."""
    started = _start(node.config)
    if isinstance(started, Exception):
        node.workerinput["postgres_error"] = repr(started)
    else:
        node.workerinput["postgres"] = msgspec.to_builtins(started)


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """The run's Postgres server, with its migrated template."""
    told: dict[str, Any] | None = getattr(pytestconfig, "workerinput", None)
    if told is None:
        started = _start(pytestconfig)
        if isinstance(started, Exception):
            raise started
        yield started
    elif "postgres" in told:
        yield msgspec.convert(told["postgres"], Cluster)
    else:
        pytest.fail(f"no Postgres for this run: {told['postgres_error']}")


@pytest.fixture
async def db(cluster: Cluster) -> AsyncIterator[str]:
    """DSN of a freshly migrated database of the test's own."""
    dsn = await cluster.create_database()
    yield dsn
    await cluster.drop_database(dsn)


@pytest.fixture
async def pool(db: str) -> AsyncIterator[asyncpg.Pool]:
    """A pool on the test's own database, working as the server's administrator."""
    opened = await open_pool(db, max_size=10, application_name="tests")
    yield opened
    opened.terminate()  # a test that failed inside a transaction must not make the run wait for it
