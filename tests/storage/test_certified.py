"""What is done on the nodes of a Galera cluster, tried on a server of its own (tests/clusters has real clusters)."""

from contextlib import closing
from itertools import pairwise

import pytest

import config
import db
from storage import session
from storage.gaps import give_up
from tests.makers import stream
from tests.support.tables import ask, check, runs, stored_ids

pytestmark = pytest.mark.slow


@pytest.fixture
def certified(connection: db.Connection) -> db.Connection:
    """A connection to a server that is taken for such a node."""
    connection.certified = True
    return connection


def _token(connection: db.Connection) -> int:
    return int(ask(connection, "SELECT token FROM symbols")[0][0])


def test_every_way_to_store_changes_the_row(certified: db.Connection) -> None:
    """One trade, many, late ones, repeats, and what only changes gaps: the token counts up, within its connection's."""
    db.insert_trades(certified, stream(1, 1))
    tokens = [_token(certified)]
    for trades in (stream(2, 1), stream(3, 100), stream(110, 1), stream(105, 2), stream(1, 1), stream(111, 1)):
        db.insert_trades(certified, trades)
        tokens.append(_token(certified))
    give_up(certified, "BTCUSDT", 103, 104, "nobody has it")
    tokens.append(_token(certified))
    # A transaction that takes a symbol over begins anew.
    assert all(before != after for before, after in pairwise(tokens))
    assert all(certified.token < token < certified.token + (1 << session.TOKEN_BITS) for token in tokens)
    assert runs(certified) == [(103, 104), (107, 109)]
    check(certified)


def test_statements_are_sent_one_by_one(certified: db.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node may undo a transaction between two statements of a request, and would run the rest of it by itself."""
    sent: list[str] = []
    query = session.Connection.cmd_query

    def cmd_query(self: session.Connection, statement: str, *args: object) -> object:
        sent.append(statement if isinstance(statement, str) else bytes(statement).decode())
        return query(self, statement, *args)

    monkeypatch.setattr(session.Connection, "cmd_query", cmd_query)
    for first, count in ((1, 1), (2, 1), (3, 100), (110, 1)):
        db.insert_trades(certified, stream(first, count))
    assert sent.count("COMMIT") == 4
    assert not [statement for statement in sent if "; " in statement]


def test_a_token_that_has_counted_up_to_its_end(certified: db.Connection, settings: config.Settings) -> None:
    """Is no longer the connection's: it looks again at what is stored, and begins anew. So does another connection."""
    db.insert_trades(certified, stream(1, 10))
    ask(certified, "UPDATE symbols SET token = %s", certified.token + (1 << session.TOKEN_BITS) - 1)
    for first in (11, 21, 31):
        assert db.insert_trades(certified, stream(first, 10)) == 10
    assert _token(certified) == certified.token + 2
    with closing(db.connect(settings)) as other:
        db.insert_trades(other, stream(51, 10))
    db.insert_trades(certified, stream(71, 10))
    assert stored_ids(certified) == [*range(1, 41), *range(51, 61), *range(71, 81)]
    assert runs(certified) == [(41, 50), (61, 70)]
