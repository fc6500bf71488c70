"""spool.py: trades on the disk come back whole, in order, and once, whatever the disk and a crash do to the files."""

import errno
import os
import resource
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from capture import spool
from capture.spool import Spool
from model.trade import Trade

AT = datetime(2024, 8, 8, 23, 54, 15, 342_000, tzinfo=UTC)


def trades(first: int, count: int) -> list[Trade]:
    """Trades with consecutive ids."""
    return [
        Trade("BTCUSDT", AT, n, Decimal("61837.63000000"), Decimal(n), n % 2 == 0, AT + timedelta(microseconds=n))
        for n in range(first, first + count)
    ]


def ids(found: list[Trade]) -> list[int]:
    """The ids of `found`."""
    return [trade.trade_id for trade in found]


def drain(store: Spool) -> list[Trade]:
    """Everything that waits, as a writer takes it; corrupt lines are left out."""
    found: list[Trade] = []
    while not store.empty:
        found += store.read().trades
        store.done()
    return found


def files(folder: Path) -> list[str]:
    """The segments on the disk."""
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes: a write is cut short there, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of some ten trades, reads of some four."""
    monkeypatch.setattr(spool, "SEGMENT_BYTES_MAX", 1_500)
    monkeypatch.setattr(spool, "REPLAY_BYTES_MAX", 500)


def test_what_was_appended_is_read_in_order_and_then_gone(tmp_path: Path) -> None:
    """An empty spool has no file, before and after."""
    store = Spool(tmp_path / "spool")
    assert store.empty
    assert files(tmp_path / "spool") == []
    store.append(trades(1, 3))
    store.append(trades(4, 2))
    assert (store.empty, store.waiting) == (False, 5)
    assert drain(store) == trades(1, 5)
    assert (store.empty, store.waiting) == (True, 0)
    assert files(tmp_path / "spool") == []
    store.append(trades(6, 1))
    assert drain(store) == trades(6, 1)


@settings(max_examples=200)
@given(
    st.text(min_size=1, max_size=32).filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text)),
    st.datetimes(datetime(2017, 1, 1), datetime(2099, 12, 31)),  # noqa: DTZ001
    st.integers(1, 2**63 - 1),
    st.decimals(Decimal("0.00000001"), Decimal("999999999999.99999999"), places=8),
    st.none() | st.datetimes(datetime(2017, 1, 1), datetime(2099, 12, 31)),  # noqa: DTZ001
)
def test_a_line_is_the_trade_exactly(
    symbol: str, at: datetime, trade_id: int, price: Decimal, received_at: datetime | None
) -> None:
    """Every digit, the microseconds of our clock, UTC, and any symbol, on one line."""
    received = None if received_at is None else received_at.replace(tzinfo=UTC)
    trade = Trade(symbol, at.replace(tzinfo=UTC), trade_id, price, price.scaleb(-3), trade_id % 2 == 0, received)
    line = spool._line(trade)
    assert line.count(b"\n") == 1
    again = spool._parse_line(line)
    assert again == trade
    assert (str(again.price), str(again.quantity)) == (str(trade.price), str(trade.quantity))
    assert again.timestamp.utcoffset() == timedelta()


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    """Nothing depends on this machine's zone."""
    at = datetime(2024, 8, 9, 1, 54, 15, 342_000, tzinfo=timezone(timedelta(hours=2)))
    assert spool._parse_line(spool._line(trades(1, 1)[0]._replace(timestamp=at))).timestamp == AT


@pytest.mark.usefixtures("small")
def test_segments_rotate_and_go_one_by_one(tmp_path: Path) -> None:
    """Each within its bound and a batch, numbered in order; each removed as soon as it is through."""
    store = Spool(tmp_path)
    for n in range(0, 100, 5):
        store.append(trades(n + 1, 5))
    names = files(tmp_path)
    assert names == [f"{n:012d}.spool" for n in range(1, len(names) + 1)]
    assert len(names) > 5
    assert all(path.stat().st_size <= 1_500 + 5 * 150 for path in tmp_path.iterdir())
    left = []
    found: list[Trade] = []
    while not store.empty:
        found += store.read().trades
        store.done()
        left.append(len(files(tmp_path)))
        assert store.waiting == 100 - len(found)
    assert found == trades(1, 100)
    assert sorted(set(left), reverse=True) == list(range(len(names), -1, -1))


@pytest.mark.usefixtures("small")
def test_the_same_is_read_until_it_is_done(tmp_path: Path) -> None:
    """A commit that failed is repeated with the very same trades, whatever was appended meanwhile."""
    store = Spool(tmp_path)
    store.append(trades(1, 6))
    first = store.read()
    store.append(trades(7, 30))
    assert store.read() == first
    assert 0 < len(first.trades) < 7
    store.done()
    assert ids(store.read().trades)[0] == len(first.trades) + 1
    assert drain(store)[-1:] == trades(36, 1)


def test_a_read_is_bounded(tmp_path: Path) -> None:
    """About REPLAY_BYTES_MAX, which is one transaction."""
    store = Spool(tmp_path)
    store.append(trades(1, 10_000))
    assert 2_000 < len(store.read().trades) < 16_000
    assert len(drain(store)) == 10_000


class SpoolMachine(RuleBasedStateMachine):
    """Any order of appends, reads, commits, crashes and full disks, against a list."""

    @initialize(segment=st.sampled_from([1, 300, 2_000]), replay=st.sampled_from([1, 400, 5_000]))
    def begin(self, segment: int, replay: int) -> None:
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(spool, "SEGMENT_BYTES_MAX", segment)
        self._patch.setattr(spool, "REPLAY_BYTES_MAX", replay)
        self._patch.setattr(os, "fsync", lambda _descriptor: None)
        self._temporary = tempfile.TemporaryDirectory(prefix="spool-")
        self._folder = Path(self._temporary.name)
        self._store = Spool(self._folder)
        self._model: list[int] = []
        self._next = 1

    def teardown(self) -> None:
        if hasattr(self, "_patch"):
            self._patch.undo()
            self._store.close()
            self._temporary.cleanup()

    @rule(count=st.integers(1, 12))
    def append(self, count: int) -> None:
        self._store.append(trades(self._next, count))
        self._model += range(self._next, self._next + count)
        self._next += count

    @rule(count=st.integers(1, 12), room=st.integers(0, 1_500))
    def append_to_a_full_disk(self, count: int, room: int) -> None:
        before = self._store.waiting
        batch = trades(self._next, count)
        with disk_full_at(room):
            try:
                self._store.append(batch)
            except OSError:
                assert self._store.waiting == before
                return
        self._model += ids(batch)
        self._next += count

    @precondition(lambda self: not self._store.empty)
    @rule(committed=st.booleans())
    def read(self, committed: bool) -> None:
        chunk = self._store.read()
        assert chunk.corrupt == []
        # After a crash, what was done in a segment that is not through comes once more; it is the newest of the model.
        found = ids(chunk.trades)
        again = [trade_id for trade_id in found if trade_id not in self._model]
        assert all(trade_id < (self._model or [self._next])[0] for trade_id in again)
        assert found[len(again) :] == self._model[: len(found) - len(again)]
        if committed:
            self._store.done()
            del self._model[: len(found) - len(again)]

    @rule()
    def crash(self) -> None:
        # The files are left as they are; closing only gives the descriptors back.
        self._store.close()
        self._store = Spool(self._folder)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if hasattr(self, "_store"):
            assert self._store.waiting <= len(self._model)
            assert not (self._store.empty and self._model)


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=60, stateful_step_count=30)


@pytest.mark.usefixtures("small")
def test_an_earlier_runs_trades_come_first(tmp_path: Path) -> None:
    """And are marked as such, and are no part of this run's count."""
    before = Spool(tmp_path)
    before.append(trades(1, 20))
    before.close()
    store = Spool(tmp_path)
    assert (store.empty, store.waiting) == (False, 0)
    store.append(trades(21, 20))
    assert store.waiting == 20
    chunks = []
    while not store.empty:
        chunks.append(store.read())
        store.done()
    assert [trade for chunk in chunks for trade in chunk.trades] == trades(1, 40)
    assert [chunk.earlier for chunk in chunks] == sorted((chunk.earlier for chunk in chunks), reverse=True)
    assert sum(len(chunk.trades) for chunk in chunks if chunk.earlier) == 20
    assert store.waiting == 0


def test_a_crash_between_commit_and_removal_repeats_the_segment(tmp_path: Path) -> None:
    """Inserting is idempotent, so twice is fine, and less than once is not."""
    store = Spool(tmp_path)
    store.append(trades(1, 5))
    assert ids(store.read().trades) == [1, 2, 3, 4, 5]
    again = Spool(tmp_path)
    assert drain(again) == trades(1, 5)
    assert files(tmp_path) == []


def test_a_segment_cut_at_any_byte_gives_the_whole_lines_before(tmp_path: Path) -> None:
    """A torn last line is what a crash leaves: no error, no corrupt line, and the trades before it."""
    lines = [spool._line(trade) for trade in trades(1, 3)]
    whole = b"".join(lines)
    ends = [len(lines[0]), len(lines[0] + lines[1]), len(whole)]
    path = tmp_path / "000000000001.spool"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        store = Spool(tmp_path)
        chunk = store.read()
        assert (ids(chunk.trades), chunk.corrupt) == ([1, 2, 3][: sum(end <= cut for end in ends)], [])
        store.done()
        assert files(tmp_path) == []


def test_a_torn_segment_is_followed_by_new_ones(tmp_path: Path) -> None:
    """What this run appends does not go behind a torn line."""
    whole = b"".join(spool._line(trade) for trade in trades(1, 3))
    (tmp_path / "000000000007.spool").write_bytes(whole[:-5])
    store = Spool(tmp_path)
    store.append(trades(3, 2))
    assert files(tmp_path) == ["000000000007.spool", "000000000008.spool"]
    assert ids(drain(store)) == [1, 2, 3, 4]


def test_one_changed_byte_costs_one_line(tmp_path: Path) -> None:
    """Each byte of the middle line changed in turn: that line is set aside as it is, the others are trades."""
    lines = [spool._line(trade) for trade in trades(1, 3)]
    path = tmp_path / "000000000001.spool"
    for at in range(len(lines[1]) - 1):
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(lines[1])
            changed[at] ^= flip
            if changed[at] == 0x0A:
                continue
            path.write_bytes(lines[0] + changed + lines[2])
            store = Spool(tmp_path)
            chunk = store.read()
            if ids(chunk.trades) == [1, 2, 3]:
                # The digits of the checksum may be written in capitals.
                assert changed[:8].lower() == lines[1][:8]
            else:
                assert (ids(chunk.trades), chunk.corrupt) == ([1, 3], [bytes(changed)])
            store.done()


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b" \n",
        b"00000000 \n",
        b"garbage\n",
        b"\x00" * 5_000 + b"\n",
        b"\xff\xfe\n",
        b"%08x %s\n" % (zlib.crc32(b"{}"), b"{}"),
        b"%08x %s\n" % (zlib.crc32(b"[1]"), b"[1]"),
        b"%08x %s\n" % (zlib.crc32(b"null"), b"null"),
        b"%08x %s\n" % (zlib.crc32(b"[" * 50_000), b"[" * 50_000),
    ],
    ids=range(10),
)
def test_a_line_that_is_none_is_set_aside(tmp_path: Path, line: bytes) -> None:
    """Also one with a right checksum of something that is no trade."""
    good = [spool._line(trade) for trade in trades(1, 2)]
    (tmp_path / "000000000001.spool").write_bytes(good[0] + line + good[1])
    store = Spool(tmp_path)
    chunk = store.read()
    assert (ids(chunk.trades), chunk.corrupt) == ([1, 2], [line])
    store.done()
    assert store.empty


def test_a_corrupt_line_of_this_run_no_longer_waits(tmp_path: Path) -> None:
    """The count of what waits comes down to zero all the same."""
    store = Spool(tmp_path)
    store.append(trades(1, 3))
    path = tmp_path / "000000000001.spool"
    path.write_bytes(path.read_bytes().replace(b"61837", b"61838", 1))
    chunk = store.read()
    assert (ids(chunk.trades), len(chunk.corrupt)) == ([2, 3], 1)
    store.done()
    assert (store.waiting, store.empty) == (0, True)


@pytest.mark.parametrize("content", [b"", b"torn", b"\x00" * 70_000])
def test_a_segment_without_a_line_is_removed(tmp_path: Path, content: bytes) -> None:
    """As a crash leaves it between creating and writing, or a power cut with zeros for the data."""
    (tmp_path / "000000000001.spool").write_bytes(content)
    store = Spool(tmp_path)
    chunk = store.read()
    assert (chunk.trades, chunk.corrupt, chunk.earlier) == ([], [], True)
    store.done()
    assert (store.empty, files(tmp_path)) == (True, [])


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """What an operator put there is no segment."""
    for name in ("README.txt", "copy of 000000000001.spool", "x.spool", "000000000003.spool.bak"):
        (tmp_path / name).write_text("x")
    store = Spool(tmp_path)
    assert store.empty
    store.append(trades(1, 1))
    assert drain(store) == trades(1, 1)
    assert len(files(tmp_path)) == 4


@pytest.mark.parametrize("room", [0, 1, 60, 100, 299])
def test_a_full_disk_takes_nothing_or_all(tmp_path: Path, room: int) -> None:
    """A batch that fits in part is not there at all; when there is room again all goes on, without a hole."""
    store = Spool(tmp_path)
    store.append(trades(1, 3))
    size = (tmp_path / "000000000001.spool").stat().st_size
    for _ in range(3):
        with disk_full_at(size + room), pytest.raises(OSError, match=r".") as caught:
            store.append(trades(4, 10))
        assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
        assert (tmp_path / "000000000001.spool").stat().st_size == size
        assert store.waiting == 3
    store.append(trades(4, 10))
    assert drain(store) == trades(1, 13)


def test_a_disk_that_is_full_from_the_start(tmp_path: Path) -> None:
    """Even the first batch may fail; the empty segment does no harm, to this run and to the next."""
    store = Spool(tmp_path)
    with disk_full_at(0), pytest.raises(OSError, match=r"."):
        store.append(trades(1, 2))
    assert store.waiting == 0
    assert drain(Spool(tmp_path)) == []
    other = Spool(tmp_path)
    with disk_full_at(0), pytest.raises(OSError, match=r"."):
        other.append(trades(1, 2))
    assert drain(other) == []
    other.append(trades(1, 2))
    assert drain(other) == trades(1, 2)


def test_a_sync_that_fails_takes_the_batch_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk has not confirmed does not count as kept, and is not there twice when it is repeated."""
    store = Spool(tmp_path)
    store.append(trades(1, 1))

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk is dying")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="dying"):
            store.append(trades(2, 2))
    store.append(trades(2, 2))
    assert drain(store) == trades(1, 3)


def test_each_batch_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and, once for each new name, its folder."""
    synced: list[str] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    store = Spool(tmp_path)
    store.append(trades(1, 1))
    store.append(trades(2, 1))
    segment = str(tmp_path / "000000000001.spool")
    assert synced == [str(tmp_path), segment, segment]


def test_the_whole_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier runs' segments count; what is through makes room."""
    monkeypatch.setattr(spool, "SPOOL_BYTES_MAX", 20 * len(spool._line(trades(18, 1)[0])))
    monkeypatch.setattr(spool, "SEGMENT_BYTES_MAX", 1_000)
    Spool(tmp_path).append(trades(1, 10))
    store = Spool(tmp_path)
    with pytest.raises(OSError, match="bound"):
        store.append(trades(11, 20))
    store.append(trades(11, 8))
    with pytest.raises(OSError, match="bound"):
        store.append(trades(19, 8))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= spool.SPOOL_BYTES_MAX
    assert drain(store) == trades(1, 18)
    store.append(trades(19, 18))
    assert drain(store) == trades(19, 18)
