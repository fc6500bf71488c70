"""A certificate: what was proven of which days, and how a stranger checks it without this program.

Its schema is docs/certificate.schema.json. Two recorders that compare certificates learn which blocks of ids differ.
"""

import hashlib
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from model.proof import BLOCK_IDS
from model.times import midnight
from process.child import ROOT
from proof.days import REASON_CHARS_MAX, Finding
from storage import schema
from storage.proofs import AGREES, CONTIGUOUS, DIFFERENT, EQUAL, Proof
from storage.retained import retained_days
from storage.session import Connection

FORMAT = 1
FILE_BYTES_MAX = 256 * 2**20
CANONICAL = (
    "id,price,quantity,ms,0|1 and a line feed for each trade, by rising id; 8 decimals; 1: the buyer is the maker"
)
_Time = Annotated[datetime, Meta(tz=True)]
_Number = Annotated[str, Meta(pattern="^(0|[1-9][0-9]{0,18})$")]
_Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class CertificateError(Exception):
    """A file that is no certificate, or says nothing of what is asked; the message names it."""


class _Day(msgspec.Struct):
    symbol: str
    day: date
    verdict: str
    proven_at: _Time
    blocks: dict[_Number, _Hash]


class _Certificate(msgspec.Struct):
    certificate: int
    days: list[_Day]


def write(path: Path, proofs: Sequence[Proof], connection: Connection, place: str, database: str) -> None:
    """Puts the certificate of `proofs`, which have their blocks, at `path`; `place`: the `database`, in words."""
    days = [_day(proof, connection, database) for proof in proofs]
    text = msgspec.json.format(msgspec.json.encode(_certificate(days, place)), indent=1)
    path.write_bytes(text + b"\n")


def _certificate(days: list[dict[str, Any]], place: str) -> dict[str, Any]:
    return {
        "certificate": FORMAT,
        "made_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "software": {"name": "tick recorder", "commit": _commit(), "schema_version": schema.SCHEMA_VERSION},
        "database": place,
        "canonical": CANONICAL,
        "merkle_tree": f"RFC 6962 over blocks of {BLOCK_IDS} ids, each from a multiple of that number on",
        "days": days,
    }


def _day(proof: Proof, connection: Connection, database: str) -> dict[str, Any]:
    start = midnight(proof.day)
    files = retained_days(connection, proof.symbol, start, start + timedelta(days=1))
    stored = _of_file(proof, connection.files / files[0].path) if files else _of_table(proof, database)
    values = proof._asdict() | {"day": str(proof.day), "proven_at": proof.as_text()["proven_at"]}
    values["blocks"] = dict(line.split() for line in proof.blocks.splitlines())
    return values | {"checks": [stored, *_of_archive(proof)]}


# Not what the client's own settings, or those of the terminal, would make of it.
_CLIENT = "mysql --default-character-set=utf8mb4 --skip-table --batch --raw --quick --skip-column-names"
_LINE = (
    "CONCAT(trade_id, ',', price, ',', quantity, ',', REPLACE(UNIX_TIMESTAMP(timestamp), '.', ''),"
    " IF(buyer_is_maker, ',1', ',0'))"
)


def _ids(proof: Proof) -> str:
    return f"trade_id >= {proof.first_trade_id or 0} AND trade_id <= {proof.last_trade_id or 0}"


def _of_table(proof: Proof, database: str) -> str:
    """A command for who can ask the database: the SHA-256 of the day. Of the ids that were there: others may come."""
    symbol = proof.symbol.replace("'", "''")
    sql = f"SET time_zone = '+00:00'; SELECT {_LINE} FROM trades WHERE symbol = '{symbol}'"
    sql += f" AND timestamp >= '{proof.day}' AND timestamp < '{proof.day + timedelta(days=1)}'"
    sql += f" AND {_ids(proof)} ORDER BY trade_id, timestamp"
    return f"{_CLIENT} -e {shlex.quote(sql)} {shlex.quote(database)} | sha256sum  # {proof.sha256}"


_LINE_OF_FILE = "concat_ws(',', trade_id, price, quantity, epoch_ms(timestamp), buyer_is_maker::INT)"


def _of_file(proof: Proof, path: Path) -> str:
    """The same for who has the day's Parquet file, and DuckDB (`pip install duckdb`)."""
    place = str(path).replace("'", "''")
    rows = f"SELECT {_LINE_OF_FILE} FROM read_parquet('{place}') WHERE {_ids(proof)} ORDER BY trade_id, timestamp"
    # Lines have commas, which are to stay as they are.
    sql = f"COPY ({rows}) TO '/dev/stdout' (FORMAT csv, HEADER false, DELIMITER '|', QUOTE '')"
    return f"python3 -c {shlex.quote(f'import duckdb; duckdb.sql({sql!r})')} | sha256sum  # {proof.sha256}"


def _of_archive(proof: Proof) -> Iterator[str]:
    """Commands for everybody: the SHA-256 of the file, and of the day in it if that is equal."""
    if "://" not in proof.compared_with:
        return
    name = shlex.quote(proof.compared_with.rpartition("/")[2])
    yield f"curl -O {shlex.quote(proof.compared_with)} && sha256sum {name}  # {proof.source_sha256}"
    if proof.verdict == EQUAL:
        start = midnight(proof.day)
        first, end = (int(when.timestamp()) * 1000 for when in (start, start + timedelta(days=1)))
        of_day = f"$1 ~ /^[0-9]+$/ && ms + 0 >= {first} && ms + 0 < {end}"
        row = 'print $1 "," eight($2) "," eight($3) "," ms "," ($6 == "True")'
        eight = 'function eight(x) { split(x ".", a, "."); return a[1] "." substr(a[2] "00000000", 1, 8) }'
        rows = f"{eight} {{ ms = substr($5, 1, 13) }} {of_day} {{ {row} }}"
        yield f"unzip -p {name} | awk -F, {shlex.quote(rows)} | sha256sum  # {proof.sha256}"


def _commit() -> str | None:
    """The commit of this program; None: it is no clone of its repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


class Certificate:
    """The certificate at `path`, of this recorder or of another. Raises CertificateError, OSError."""

    def __init__(self, path: Path) -> None:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise CertificateError(f"{path} is longer than {FILE_BYTES_MAX} bytes")
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_Certificate)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise CertificateError(f"{path} is no certificate: {error}") from None
        if found.certificate != FORMAT:
            raise CertificateError(f"{path} has the format {found.certificate}; this program knows {FORMAT}")
        self._path, self._sha256 = path, sha256_of(path)
        self._days = {(one.symbol, one.day): one for one in found.days}

    def covers(self, symbol: str, day: date) -> bool:
        """Whether it says anything of that day."""
        return (symbol, day) in self._days

    def beside(self, found: Finding) -> Finding:
        """`found`, which was compared with nothing, beside what the certificate says of the day. Raises
        CertificateError if the day was not over when it was made, since the two would end at different trades."""
        proof = found.proof
        other = self._days[proof.symbol, proof.day]
        if other.proven_at < midnight(proof.day) + timedelta(days=1):
            raise CertificateError(
                f"{self._path} was made while {proof.day} was not over; only whole days are compared"
            )
        here = dict(line.split() for line in proof.blocks.splitlines())
        numbers = {int(number) for number in chain(here, other.blocks) if here.get(number) != other.blocks.get(number)}
        words = [f"ids {one * BLOCK_IDS} to {(one + 1) * BLOCK_IDS - 1} differ" for one in sorted(numbers)]
        proof = proof._replace(compared_with=str(self._path), source_sha256=self._sha256)
        if words:
            proof = proof._replace(
                verdict=DIFFERENT, reason=_joined(f"{len(words)} blocks of ids differ", proof.reason)
            )
        else:
            # Two that have the same need not be right: what is known is what the other has compared it with.
            verdict = (
                other.verdict if proof.verdict == CONTIGUOUS and other.verdict in (EQUAL, AGREES) else proof.verdict
            )
            reason = _joined(f"by hash the same trades as there, where they are {other.verdict}", proof.reason)
            proof = proof._replace(verdict=verdict, reason=reason)
        return found._replace(proof=proof, problems=[*found.problems, *words])


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)[:REASON_CHARS_MAX]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
