"""archive_file.py: what a file of the archive has, what is wrong with one, and the canonical lines of its trades."""

import contextlib
import zipfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from binance import archive_file
from binance.archive_file import ArchiveFile, Content, Defect, Rows
from binance.checks import TRADE_ID_MAX
from model.proof import BLOCK_IDS
from tests.makers import MIDNIGHT
from tests.support.archive_files import (
    BYTES,
    CRC,
    DAY,
    DAY_MS,
    ENCRYPTED,
    FLAGS,
    HEADER,
    IS_UTF8,
    START_MS,
    STEM,
    file_of,
    file_with,
    line,
    lines,
    packed,
    packed_all,
    said,
    saying,
)

MS = timedelta(milliseconds=1)
COIN = f"币安人生USDT-trades-{DAY}"
QUICK = examples(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def canonical(file: ArchiveFile) -> bytes:
    """All canonical lines of a file."""
    return b"".join(text for _, text in file.canonical())


def kind(file: ArchiveFile) -> str:
    """What is wrong with a file, which check() and canonical() must agree on; one line that names it."""
    found = []
    for read in (file.check, lambda: list(file.canonical())):
        with pytest.raises(Defect) as caught:
            read()
        assert str(caught.value).startswith(f"{STEM}.zip")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
        found.append(caught.value.kind)
    assert found[0] == found[1]
    return found[0]


# ---- Good files.


@pytest.mark.parametrize("header", ["", HEADER])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_file_with_and_without_a_header(tmp_path: Path, header: str, method: int) -> None:
    """Its ids, how many, its times; its lines as they are; and the canonical ones."""
    text = line(7) + line(8, 5, maker="True", best="False", price="1.5")
    file = file_with(tmp_path, packed(header + text, method=method))

    content = file.check()

    assert content == Content(7, 8, MIDNIGHT, MIDNIGHT + 5 * MS)
    assert content.trades == 2
    assert list(file.rows()) == [Rows(7, 2, text.encode())]
    assert next(file.rows()).last_trade_id == 8
    assert canonical(file).decode() == (
        f"7,97000.12000000,0.00012000,{START_MS},0\n8,1.50000000,0.00012000,{START_MS + 5},1\n"
    )


def test_each_row_has_its_own_unit_of_time(tmp_path: Path) -> None:
    """Milliseconds and microseconds beside each other; the part below a millisecond is cut off."""
    stamps = [f"{START_MS}", f"{START_MS + 1}999", f"{START_MS + 1}", f"{START_MS + 2}000", f"{START_MS + 2}001"]
    file = file_of(tmp_path, "".join(line(number, time=stamp) for number, stamp in enumerate(stamps, 1)))

    assert file.check() == Content(1, 5, MIDNIGHT, MIDNIGHT + 2 * MS)
    times = [int(row.split(b",")[3]) - START_MS for row in canonical(file).splitlines()]
    assert times == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("decimals", ["", "000", "999"])
def test_the_first_and_the_last_millisecond_belong_to_the_day(tmp_path: Path, decimals: str) -> None:
    """And the one before and the one after do not, in either unit."""
    ends = [f"{START_MS}{decimals}", f"{START_MS + DAY_MS - 1}{decimals}"]
    file = file_of(tmp_path, "".join(line(number, time=stamp) for number, stamp in enumerate(ends, 1)))
    assert file.check() == Content(1, 2, MIDNIGHT, MIDNIGHT + DAY_MS * MS - MS)

    for outside in (START_MS - 1, START_MS + DAY_MS):
        stamps = sorted([f"{START_MS + 5}", f"{outside}{decimals}"])
        text = "".join(line(number, time=stamp) for number, stamp in enumerate(stamps, 1))
        assert kind(file_of(tmp_path, text)) == archive_file.OTHER_DAY


def test_times_that_run_back_are_taken(tmp_path: Path) -> None:
    """Ids are the order; the times of the content are the earliest and the latest."""
    file = file_of(tmp_path, line(1, 500) + line(2, 900) + line(3, 100) + line(4, 300))
    assert file.check() == Content(1, 4, MIDNIGHT + 100 * MS, MIDNIGHT + 900 * MS)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("999999999999.99999999", "999999999999.99999999"),
        ("0.00000001", "0.00000001"),
        ("1", "1.00000000"),
        ("10", "10.00000000"),
        ("0.5", "0.50000000"),
        ("100.1", "100.10000000"),
        ("007.25000000", "7.25000000"),
        ("000000000000.10000000", "0.10000000"),
        ("00.5", "0.50000000"),
    ],
)
@pytest.mark.parametrize("column", ["price", "qty"])
def test_an_amount_gets_eight_decimals(tmp_path: Path, column: str, text: str, number: str) -> None:
    """The number as it is, whatever digits it is written with, alone and beside those that have eight already."""
    other = {"price": "97000.12000000", "qty": "0.00012000"}
    file = file_of(tmp_path, line(1) + line(2, **{column: text}))
    assert file.check().trades == 2
    wanted = other | {column: number}
    assert canonical(file).decode() == (
        f"1,{other['price']},{other['qty']},{START_MS},0\n2,{wanted['price']},{wanted['qty']},{START_MS},0\n"
    )


def test_the_largest_id(tmp_path: Path) -> None:
    """As large as the exchange's can be."""
    file = file_of(tmp_path, line(TRADE_ID_MAX - 1) + line(TRADE_ID_MAX))
    assert file.check() == Content(TRADE_ID_MAX - 1, TRADE_ID_MAX, MIDNIGHT, MIDNIGHT)
    assert [number for number, _ in file.canonical()] == [TRADE_ID_MAX // BLOCK_IDS]


# ---- Rows that are no trades.

BAD = [
    *(
        {column: text}
        for column in ("price", "qty")
        for text in (
            "0",
            "0.0",
            "00.00000000",
            "-1",
            "+1",
            "NaN",
            "Infinity",
            "1e5",
            "1.000000001",
            "1.",
            ".5",
            "",
            " 1",
        )
    ),
    *({column: "1234567890123"} for column in ("price", "qty")),
    *({"id": text} for text in ("0", "00", "-1", "", "007", "1.0", "1e3", str(2**64), "9" * 20, "x1", "１")),
    *({"time": text} for text in ("", "1740787200", "17407872000000", "1740787200000.5", "174078720000000000", "-1")),
    *({"maker": text} for text in ("true", "false", "TRUE", "1", "")),
    *({"best": text} for text in ("true", "0", "")),
    *({"quote": text} for text in ("", "-1", "NaN", "1e5")),
    {"qty": "1,5"},
    {"best": "True,1"},
    {"best": "True "},
    {"quote": "1" * 300},
]


@pytest.mark.parametrize("changed", BAD, ids=str)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_that_is_no_trade_is_refused(tmp_path: Path, changed: dict[str, str], place: int) -> None:
    """The whole file, wherever the row stands; a monthly file too."""
    rows = [line(1), line(2), line(3)]
    rows[place] = line(place + 1, **changed)
    for monthly in (False, True):
        file = file_of(tmp_path, HEADER + "".join(rows), monthly)
        assert kind(file) == archive_file.BAD_ROW


def test_an_id_that_is_too_large(tmp_path: Path) -> None:
    """Alone, and right behind the largest."""
    for text in (line(TRADE_ID_MAX) + line(TRADE_ID_MAX + 1), line(TRADE_ID_MAX + 1), line("9" * 19)):
        assert kind(file_of(tmp_path, text)) == archive_file.BAD_ROW


@pytest.mark.parametrize(
    "text",
    [
        (line(1) + line(2)).rstrip("\n"),
        (line(1) + line(2)).replace("\n", "\r\n"),
        line(1) + "\n" + line(2),
        "\n" + line(1),
        line(1) + "\n",
        line(1) + "\x00",
        line(1) + HEADER + line(2),
        HEADER + HEADER + line(1),
        HEADER.rstrip("\n"),
        "\ufeff" + line(1),
        line(1) + "x" * 300,
        "x" * (3 * 2**20),
        line(1).replace(",", ";"),
        line(1).replace(",", "\t"),
        "<html>not here</html>",
    ],
    ids=lambda text: repr(text[-40:]),
)
def test_a_text_that_is_not_lines_of_trades_is_refused(tmp_path: Path, text: str) -> None:
    """Without a last line feed, with \\r, with empty lines, with a second header, with another separator."""
    assert kind(file_of(tmp_path, text)) == archive_file.BAD_ROW


# ---- Ids.


@pytest.mark.parametrize("chunk", [1, 100, 150, 2**20])
@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        ([1, 2, 4, 5], archive_file.IDS_MISSING),
        ([1, 3], archive_file.IDS_MISSING),
        ([1, 2, 2, 3], archive_file.UNSORTED),
        ([1, 2, 3, 3], archive_file.UNSORTED),
        ([5, 5], archive_file.UNSORTED),
        ([2, 1], archive_file.UNSORTED),
        ([4, 5, 6, 1, 2, 3], archive_file.UNSORTED),
    ],
)
def test_ids_that_do_not_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, ids: list[int], wanted: str
) -> None:
    """Missing, doubled, swapped: inside of a chunk, and between two."""
    monkeypatch.setattr(archive_file, "CHUNK_BYTES", chunk)
    assert kind(file_of(tmp_path, "".join(map(line, ids)))) == wanted


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """First and last; and which id stands where it must not."""
    for ids, words in (((7, 11), "lacks the ids 8 to 10"), ((7, 7), "has id 7 after id 7")):
        with pytest.raises(Defect, match=f"^{STEM}.zip {words}$"):
            file_of(tmp_path, "".join(map(line, ids))).check()


# ---- Zips.


def test_a_name_that_is_not_ascii(tmp_path: Path) -> None:
    """Marked as UTF-8 or, as by programs that do not mark it, not."""
    marked = packed(line(1), f"{COIN}.csv")
    assert said(marked, FLAGS) & IS_UTF8
    for content in (marked, saying(marked, FLAGS, said(marked, FLAGS) & ~IS_UTF8)):
        path = tmp_path / f"{COIN}.zip"
        path.write_bytes(content)
        assert ArchiveFile(path, f"{COIN}.csv", DAY).check().trades == 1
        with pytest.raises(Defect, match="should hold"):
            ArchiveFile(path, f"{COIN}2.csv", DAY).check()


GOOD = packed(lines(1, 50))
DAMAGED = {
    "nothing": b"",
    "no zip": b"<html>",
    "no member": packed_all([]),
    "two members": packed_all([(f"{STEM}.csv", line(1)), ("more.csv", line(2))]),
    "another name": packed(line(1), "ETHUSDT-trades-2025-03-01.csv"),
    "a name in a folder": packed(line(1), f"../{STEM}.csv"),
    "another case": packed(line(1), f"{STEM}.CSV"),
    "a folder": packed("", f"{STEM}.csv/"),
    "encrypted": saying(GOOD, FLAGS, ENCRYPTED),
    "truncated": GOOD[:-1],
    "half of it": GOOD[: len(GOOD) // 2],
    "another CRC": saying(GOOD, CRC, 12_345),
    "more than it claims": saying(GOOD, BYTES, len(line(1))),
    "bzip2": packed(lines(1, 50), method=zipfile.ZIP_BZIP2),
    "LZMA": packed(lines(1, 50), method=zipfile.ZIP_LZMA),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_zip_that_is_not_as_it_must_be(tmp_path: Path, name: str) -> None:
    """One deflated or stored member of the right name, and nothing else."""
    assert kind(file_with(tmp_path, DAMAGED[name])) == archive_file.DAMAGED


def test_the_same_member_twice(tmp_path: Path) -> None:
    """Which of the two would be read is anybody's guess."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = packed_all([(f"{STEM}.csv", line(1)), (f"{STEM}.csv", line(2))])
    assert kind(file_with(tmp_path, content)) == archive_file.DAMAGED


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It claims more than is believed: nothing of it is read."""
    monkeypatch.setattr(archive_file, "CSV_BYTES_MAX", 10_000)
    monkeypatch.setattr(archive_file, "_lines", pytest.fail)
    content = packed("0" * 10_001)
    with pytest.raises(Defect, match="at most 10000 are believed") as caught:
        file_with(tmp_path, content).check()
    assert caught.value.kind == archive_file.DAMAGED


def test_a_file_with_no_trade(tmp_path: Path) -> None:
    """Empty, with a header alone, or a monthly one without the day."""
    for text, monthly in (("", False), (HEADER, False), (line(1, -1) + line(2, DAY_MS), True)):
        file = file_of(tmp_path, text, monthly)
        with pytest.raises(Defect) as caught:
            file.check()
        assert caught.value.kind == archive_file.EMPTY
        assert list(file.canonical()) == []
        assert list(file.rows()) == []


@QUICK
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=3), st.booleans())
@example([(len(GOOD) - 6, 255)], False)
def test_any_damage_is_found_or_does_not_matter(tmp_path: Path, changes: list[tuple[int, int]], is_cut: bool) -> None:
    """Bytes of a zip are changed, or its end is missing: the very same lines, or a Defect and nothing else."""
    content = bytearray(GOOD)
    for place, value in changes:
        content[place] = value
    file = file_with(tmp_path, bytes(content[: changes[0][0]] if is_cut else content))
    found = b""
    with contextlib.suppress(Defect):
        found = b"".join(rows.text for rows in file.rows())
    assert found in (b"", lines(1, 50).encode())


# ---- Monthly files.


@pytest.mark.parametrize("chunk", [100, 1_000, 2**20])
def test_of_a_month_only_the_rows_of_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """However its days fall into chunks; what is missing on other days does not matter."""
    monkeypatch.setattr(archive_file, "CHUNK_BYTES", chunk)
    before, after = lines(1, 30, -DAY_MS) + line(40, -1), line(63, DAY_MS) + lines(70, 99, DAY_MS + 5)
    own = line(41, time=f"{START_MS}000") + lines(42, 61, 7) + line(62, time=f"{START_MS + DAY_MS - 1}999")
    file = file_of(tmp_path, HEADER + before + own + after, monthly=True)

    assert file.check() == Content(41, 62, MIDNIGHT, MIDNIGHT + DAY_MS * MS - MS)
    assert b"".join(rows.text for rows in file.rows()) == own.encode()
    assert canonical(file) == canonical(file_of(tmp_path, own))
    missing = HEADER + before + own.replace(line(50, 15), "") + after
    assert kind(file_of(tmp_path, missing, monthly=True)) == archive_file.IDS_MISSING


# ---- Canonical lines.


@pytest.mark.parametrize("chunk", [1, 333, 2**12, 2**20])
def test_blocks_are_cut_at_multiples_of_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Inside of a chunk, where a chunk ends, and a block that is longer than a chunk."""
    monkeypatch.setattr(archive_file, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(archive_file, "BLOCK_IDS", 10)
    monkeypatch.setattr(archive_file, "block_of", lambda trade_id: trade_id // 10)
    file = file_of(tmp_path, lines(18, 50))
    blocks = {number: [int(row.split(b",")[0]) for row in text.splitlines()] for number, text in file.canonical()}
    assert blocks == {
        1: [18, 19],
        2: list(range(20, 30)),
        3: list(range(30, 40)),
        4: list(range(40, 50)),
        5: [50],
    }


def test_blocks_of_their_real_size(tmp_path: Path) -> None:
    """65,536 ids each, over the borders of several chunks."""
    first, last = 3 * BLOCK_IDS - 2, 5 * BLOCK_IDS
    file = file_of(tmp_path, lines(first, last))
    assert len(list(file.rows())) > 5

    blocks = list(file.canonical())

    assert [(number, text.count(b"\n"), int(text.split(b",")[0])) for number, text in blocks] == [
        (2, 2, first),
        (3, BLOCK_IDS, 3 * BLOCK_IDS),
        (4, BLOCK_IDS, 4 * BLOCK_IDS),
        (5, 1, last),
    ]


AMOUNTS = st.integers(1, 10**20 - 1).map(lambda units: Decimal(units).scaleb(-8))


@st.composite
def written(draw: st.DrawFn, number: Decimal) -> str:
    """A way to write an amount: fewer decimals if the rest are zeros, zeros before it."""
    whole, _, decimals = f"{number:.8f}".partition(".")
    shortest = decimals.rstrip("0")
    decimals = decimals[: draw(st.integers(len(shortest), 8))]
    whole = whole.zfill(draw(st.integers(len(whole), 12)))
    return f"{whole}.{decimals}" if decimals else whole


@st.composite
def days(draw: st.DrawFn) -> tuple[str, str]:
    """Good lines of any kind, and the canonical ones by a slow computation of its own."""
    first = draw(st.integers(1, 3 * BLOCK_IDS))
    text, wanted = "", ""
    for number in range(first, first + draw(st.integers(1, 25))):
        price, quantity = draw(AMOUNTS), draw(AMOUNTS)
        us, maker = draw(st.integers(0, DAY_MS * 1_000 - 1)), draw(st.booleans())
        when = datetime(2025, 3, 1, tzinfo=UTC) + timedelta(microseconds=us)
        ms = (when - datetime(1970, 1, 1, tzinfo=UTC)) // MS
        stamp = f"{ms}{us % 1_000:03}" if draw(st.booleans()) else f"{ms}"
        columns: dict[str, Any] = {"price": draw(written(price)), "qty": draw(written(quantity)), "time": stamp}
        text += line(number, **columns, maker=maker)
        wanted += f"{number},{price:.8f},{quantity:.8f},{ms},{int(maker)}\n"
    return text, wanted


@QUICK
@given(days(), st.booleans(), st.integers(1, 400))
def test_any_good_rows(tmp_path: Path, day: tuple[str, str], monthly: bool, chunk: int) -> None:
    """The canonical lines, in their blocks, are those of an independent computation; the lines themselves are kept."""
    text, wanted = day
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_file, "CHUNK_BYTES", chunk)
        file = file_of(tmp_path, text, monthly)
        content, blocks = file.check(), list(file.canonical())
        assert b"".join(rows.text for rows in file.rows()) == text.encode()
    ids = [int(row.split(",")[0]) for row in wanted.splitlines()]
    times = [int(row.split(",")[3]) for row in wanted.splitlines()]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert content == Content(ids[0], ids[-1], epoch + min(times) * MS, epoch + max(times) * MS)
    assert b"".join(part for _, part in blocks).decode() == wanted
    assert [number for number, _ in blocks] == sorted({number // BLOCK_IDS for number in ids})
