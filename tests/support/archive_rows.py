"""Files as the exchange's archive has them: rows of a day, zipped, with their checksum."""

import hashlib
import io
import zipfile
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from model.times import EPOCH, MILLISECOND
from model.trade import Trade

DAY = date(2025, 3, 1)
START = datetime(2025, 3, 1, tzinfo=UTC)


class Row(NamedTuple):
    """A line of a file, each field as its text."""

    id: str
    price: str = "97000.12000000"
    quantity: str = "0.00012000"
    quote: str = "11.64001440"
    time: str = "1740787200000000"
    maker: str = "True"
    best: str = "True"


def row(trade_id: int, when: datetime = START, unit_us: int = 1, **fields: str) -> Row:
    """The line of a trade at `when`; `unit_us`: microseconds in a unit of its time, 1000 for milliseconds."""
    stamp = (when - EPOCH) // timedelta(microseconds=unit_us)
    return Row(str(trade_id), time=str(stamp))._replace(**fields)


def rows(first: int, count: int, when: datetime = START, step: timedelta = timedelta(milliseconds=7)) -> list[Row]:
    """Lines of consecutive ids, `step` apart."""
    return [
        row(
            first + n,
            when + n * step + timedelta(microseconds=n % 1000),
            price=f"{97000 + n % 7}.{n % 100:02d}000000",
            quantity=f"0.{n % 89_999 + 1:08d}",
            maker="True" if n % 3 else "False",
        )
        for n in range(count)
    ]


def text(lines: Iterable[Row]) -> bytes:
    """The CSV of these lines."""
    return "".join(",".join(line) + "\n" for line in lines).encode()


def zipped(content: bytes, *members: str) -> bytes:
    """A zip with this content under each of the names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def checksum(body: bytes, name: str) -> bytes:
    """The CHECKSUM beside a file."""
    return f"{hashlib.sha256(body).hexdigest()}  {name}\n".encode()


def trades_of(symbol: str, lines: Sequence[Row]) -> list[Trade]:
    """The trades that these lines are, their times floored, as the table must have them."""
    return [
        Trade(
            symbol,
            EPOCH + int(line.time[:13]) * MILLISECOND,
            int(line.id),
            Decimal(line.price),
            Decimal(line.quantity),
            line.maker == "True",
        )
        for line in lines
    ]


def canonical(lines: Sequence[Row]) -> bytes:
    """The canonical lines of these, made slowly."""
    made = []
    for line in lines:
        amounts = f"{Decimal(line.price):.8f},{Decimal(line.quantity):.8f}"
        made.append(f"{int(line.id)},{amounts},{line.time[:13]},{line.maker == 'True':d}\n")
    return "".join(made).encode()
