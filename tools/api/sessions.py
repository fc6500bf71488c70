"""The API's sessions with the database: read-only, a bounded number, shared by all requests."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import config
import db
from db import Connection
from storage.errors import FileError

log = logging.getLogger("api")
T = TypeVar("T")

SESSIONS_MAX = 8
WAIT_S_MAX = 2.0
"""A request waits at most so long for a session to be free."""
READ_S_MAX = 10
"""A server that does not answer a question for so long counts as gone."""
QUIET_S = 10.0
"""A database that is not there at first may be about to be made: nothing is logged of it for so long."""


class AwayError(Exception):
    """The database cannot be asked now; the message is for the client, and the log has the details."""


class Sessions:
    """Answers questions to the database of `settings`, each on a session of its own.

    While the database is away each question fails at once, and `revive`, which somebody calls now and then, looks
    whether it is back: so an outage costs no request a time-out, and the database no storm of connections.
    """

    def __init__(self, settings: config.Settings) -> None:
        self.away = True
        self._settings = settings
        self._idle: list[Connection] = []
        self._free = threading.BoundedSemaphore(SESSIONS_MAX)
        self._said = ""
        self._quiet_until = time.monotonic() + QUIET_S

    def ask(self, question: Callable[[Connection], T]) -> T:
        """What `question` returns. Raises AwayError; one question in flight is repeated when its session was cut."""
        if self.away:
            raise AwayError("the database is away")
        if not self._free.acquire(timeout=WAIT_S_MAX):
            raise AwayError(f"all {SESSIONS_MAX} sessions with the database are busy")
        try:
            return self._ask(question)
        except FileError as error:
            self._say(str(error))
            raise AwayError(str(error)) from error
        except db.DatabaseError as error:
            self._say(f"the database does not answer: {error}")
            raise AwayError("the database does not answer") from error
        finally:
            self._free.release()

    def revive(self) -> bool:
        """Whether the database can be asked; connects to it if it was away. To be called by one thread."""
        if self.away:
            try:
                self._idle.append(self._connect())
            except db.DatabaseError as error:
                if time.monotonic() > self._quiet_until:
                    self._say(f"the database is away: {error}")
                return False
            self.away = False
            self._quiet_until = 0.0
            self._say(f"the API reads database {self._settings.place}", logging.INFO)
        return True

    def close(self) -> None:
        """Closes what is idle; nothing can be asked any more."""
        self.away = True
        self._drop_idle()

    def _ask(self, question: Callable[[Connection], T]) -> T:
        connection = self._take() or self._connect_again()
        try:
            answer = question(connection)
        except db.GoneError:
            # Sessions that idle are cut by the server, and by one that is started again all of them.
            db.close(connection)
            self._drop_idle()
            connection = self._connect_again()
            answer = self._or_close(connection, question)
        except BaseException:
            db.close(connection)
            raise
        self._idle.append(connection)
        return answer

    def _or_close(self, connection: Connection, question: Callable[[Connection], T]) -> T:
        try:
            return question(connection)
        except BaseException as error:
            self.away = isinstance(error, db.GoneError)
            db.close(connection)
            raise

    def _connect(self) -> Connection:
        return db.connect(self._settings, read_only=True, read_s_max=READ_S_MAX)

    def _connect_again(self) -> Connection:
        try:
            return self._connect()
        except db.DatabaseError:
            self.away = True
            raise

    def _take(self) -> Connection | None:
        with suppress(IndexError):
            return self._idle.pop()
        return None

    def _drop_idle(self) -> None:
        while (connection := self._take()) is not None:
            db.close(connection)

    def _say(self, words: str, level: int = logging.WARNING) -> None:
        """Logs what has changed, and not once for every request."""
        if words != self._said:
            self._said = words
            log.log(level, "%s", words)
