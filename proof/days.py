"""The audit of a symbol and UTC day: what is stored, beside what the exchange published, and our own claims of it."""

import csv
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import db
from binance.archive import CUT_SHORT, NOT_PUBLISHED, Archive, ArchiveError, Expected
from binance.archive_file import Defect
from binance.rest import Rest, RestError
from model import candles as bars
from model import ids
from model.candles import MINUTE
from model.ids import Run
from model.times import midnight
from proof import klines
from proof.compare import Difference, Kind, Side, compare, read
from storage import canonical
from storage.proofs import AGREES, CONTIGUOUS, DIFFERENT, EQUAL, GAPPED, UNVERIFIABLE, Proof
from storage.runs import filled_since

log = logging.getLogger("audit")

DAY = timedelta(days=1)
SHOWN_MAX = 100
"""Differences that are remembered; all are counted, and written to a file."""
ROWS_MAX = 10_000
"""Differences in memory, before they are written to the file."""
PROBLEMS_MAX = 10
"""Of our own claims that are named."""
REASON_CHARS_MAX = 500
REPLACED = "the exchange has replaced the file that was loaded"
TRIES_MAX = 3
"""A capture may store trades of the day while it is audited, so what is not good is looked at again."""
CLOCK = timedelta(minutes=1)
"""By which the clocks of those who store trades may differ from ours, or a transaction last."""
AUTO, ARCHIVE, KLINES, NONE = "auto", "archive", "klines", "none"


class Other(NamedTuple):
    """The other side of a comparison: what it is called, its SHA-256 if it is a file, and its blocks; its ids, if
    nobody knows whether it has the whole day."""

    name: str
    sha256: str
    blocks: Callable[[], Iterator[tuple[int, bytes]]]
    ids: Run | None = None


class Finding(NamedTuple):
    """What an audit of a day has found: the proof, not yet in the chain; the first differences, how many there are of
    each kind, and the file with all of them; the minutes that differ from the klines; what is wrong with our own
    claims; whether what was asked for could not be tried."""

    proof: Proof
    differences: list[Difference]
    counts: Counter[Kind]
    file: Path | None
    minutes: list[klines.MinuteDifference]
    problems: list[str]
    untried: str
    is_settled: bool
    """If not, trades of the day were stored while it was read again and again: this is no proof of anything."""


class _Look(NamedTuple):
    """One look at a day, [start, end): what is stored, what is wrong with our claims, and which of its ids are absent;
    `reason` is what a reader should know of it. `is_settled`: none of the absent was stored during the look."""

    side: Side
    problems: list[str]
    absent: list[Run]
    reason: str
    is_settled: bool

    @property
    def missing(self) -> int:
        """How many ids are absent."""
        return sum(last - first + 1 for first, last in self.absent)


class Differences:
    """Counts what differs, remembers the first, and writes all of it to a file, which is made when there is any."""

    def __init__(self, path: Path, ids: Run | None = None) -> None:
        self.counts: Counter[Kind] = Counter()
        self.beyond = 0
        """How many are only here because the other side, which has `ids`, begins later or ends earlier."""
        self._ids = ids
        self.shown: list[Difference] = []
        self.path = path
        self._rows: list[tuple[str, ...]] = []
        self.clear()

    def clear(self) -> None:
        """Begins anew."""
        self.counts.clear()
        self.beyond = 0
        self.shown.clear()
        self._rows.clear()
        self.path.unlink(missing_ok=True)

    def add(self, one: Difference) -> None:
        """Takes in the next difference."""
        self.counts[one.kind] += 1
        if one.kind is Kind.ONLY_HERE and self._ids is not None:
            self.beyond += not self._ids[0] <= one.trade_id <= self._ids[1]
        if len(self.shown) < SHOWN_MAX:
            self.shown.append(one)
        self._rows.append((str(one.trade_id), one.kind, " ".join(one.columns), one.here, one.there))
        if len(self._rows) >= ROWS_MAX:
            self.flush()

    def flush(self) -> None:
        """Writes what is not written yet."""
        if not self._rows:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(("trade_id", "kind", "columns", "here", "there"))
            writer.writerows(self._rows)
        self._rows.clear()


class Auditor:
    """Audits days over a connection, which only reads. `folder`: where all differences of a day are written; `beside`:
    a second connection, over which bars are looked at meanwhile.

    Each method raises db.DatabaseError.
    """

    def __init__(
        self,
        connection: db.Connection,
        archive: Archive,
        rest: Rest,
        folder: Path,
        beside: db.Connection | None = None,
    ) -> None:
        self._connection = connection
        self._beside_it = beside
        self._archive = archive
        self._rest = rest
        self._folder = folder

    def audit(self, symbol: str, day: date, against: str | Other = AUTO) -> Finding:
        """What is found on a day, looked at again if it is not good and may have changed meanwhile."""
        for _ in range(TRIES_MAX):
            before = self._moment(symbol, day)
            found = self._audit(symbol, day, against)
            if found.proof.verdict in (EQUAL, AGREES, CONTIGUOUS) or self._moment(symbol, day) == before:
                break
        return found

    def _moment(self, symbol: str, day: date) -> object:
        """What changes whenever trades of the day are stored, or gaps change."""
        found = db.min_max(self._connection, symbol, midnight(day), midnight(day) + DAY)
        return db.open_gaps(self._connection, symbol), found.trades if found else 0

    def _audit(self, symbol: str, day: date, against: str | Other) -> Finding:
        if isinstance(against, Other):
            return self._beside(symbol, day, against)
        untried = why = ""
        if against in (AUTO, ARCHIVE) and datetime.now(UTC) >= midnight(day) + DAY:
            try:
                return self._beside_archive(symbol, day)
            except Defect as defect:
                why = str(defect)
                if against == ARCHIVE and defect.kind != NOT_PUBLISHED:
                    return self._alone(symbol, day, why, UNVERIFIABLE)
            except ArchiveError as error:
                untried = why = str(error)
        if against in (AUTO, KLINES):
            try:
                return self._beside_klines(symbol, day, why)
            except RestError as error:
                untried = why = str(error)
        return self._alone(symbol, day, why, CONTIGUOUS)._replace(untried=untried)

    def _beside_archive(self, symbol: str, day: date) -> Finding:
        """Raises Defect, ArchiveError."""
        trades = klines.day_count(self._rest, symbol, day)
        after = canonical.ids_beside(self._connection, symbol, midnight(day), midnight(day) + DAY)[1]
        expected = Expected(trades, after - 1 if after is not None else None)
        with self._archive.day(symbol, day, expected) as archived:
            content = archived.content
            # It has as many as the exchange counts, if that is known.
            span = (content.first_trade_id, content.last_trade_id) if trades is None else None
            found = self._beside(symbol, day, Other(archived.url, archived.sha256, archived.file.canonical, span))
        loaded = db.loaded_files(self._connection, symbol, day, day)
        if not loaded or archived.sha256 == loaded[-1].sha256:
            return found
        reason = "; ".join(filter(None, (found.proof.reason, REPLACED)))
        return found._replace(proof=found.proof._replace(reason=_bounded(reason)))

    def _beside(self, symbol: str, day: date, other: Other) -> Finding:
        """The day beside another side, row by row. Raises Defect."""
        differences = Differences(self._folder / f"{symbol}-{day}.csv", other.ids)

        def reader(blocks: Iterator[canonical.Block]) -> Side:
            differences.clear()
            return compare(blocks, other.blocks(), differences.add)

        counts = differences.counts
        try:
            look = self._look(symbol, day, reader)
            if differences.beyond and differences.beyond == counts[Kind.ONLY_HERE] and not counts[Kind.DIFFERS]:
                # What it has is as it is here, so nothing is wrong with what it has not.
                raise Defect(CUT_SHORT, f"{other.name.rpartition('/')[2]} does not have all trades of the day")
        except Defect:
            differences.clear()
            raise
        differences.flush()
        wrong = counts[Kind.ONLY_HERE] + counts[Kind.DIFFERS]
        missing = max(look.missing, counts[Kind.ONLY_THERE])
        verdict = DIFFERENT if wrong or look.problems else GAPPED if missing else EQUAL
        words = [_said(kind, counts[kind]) for kind in Kind if counts[kind]]
        proof = _proof(symbol, day, look, verdict, [", ".join(words)])
        proof = proof._replace(missing=missing, compared_with=other.name, source_sha256=other.sha256)
        file = differences.path if counts else None
        return Finding(proof, differences.shown, counts, file, [], look.problems, "", look.is_settled)

    def _beside_klines(self, symbol: str, day: date, why: str) -> Finding:
        """The day beside the exchange's klines. Raises RestError."""
        settled = bars.floor(datetime.now(UTC) - klines.SETTLE, MINUTE)
        start, end = midnight(day), min(self.end_of(symbol, day), settled)
        there = list(klines.fetch(self._rest, symbol, start, end)) if start < end else []
        if not there:
            none = "the exchange has no klines of it yet" if start < end else ""
            return self._alone(symbol, day, why or none, CONTIGUOUS)
        here = db.candles(self._connection, symbol, MINUTE, start, end)
        # Where the exchange is behind, nothing is known of the last minutes.
        until = there[-1].start + klines.MINUTE_LONG
        beyond = [minute for minute in here if minute.timestamp >= until]
        agreement = klines.compare(here[: len(here) - len(beyond)], there)
        look = self._look(symbol, day, read)
        missing = max(look.missing, agreement.missing)
        good = CONTIGUOUS if beyond else AGREES
        verdict = DIFFERENT if agreement.wrong or look.problems else GAPPED if missing else good
        words = [f"{len(agreement.different)} of {agreement.minutes} minutes differ"] if agreement.different else []
        words += [f"klines up to {until:%H:%M}"] if end < midnight(day) + DAY or beyond else []
        proof = _proof(symbol, day, look, verdict, [*words, why])._replace(missing=missing, compared_with="klines")
        return Finding(proof, [], Counter(), None, agreement.different, look.problems, "", look.is_settled)

    def _alone(self, symbol: str, day: date, why: str, verdict: str) -> Finding:
        """The day beside nothing; `verdict` if nothing is wrong with what is stored."""
        look = self._look(symbol, day, read)
        least = _least(look)
        proof = _proof(symbol, day, look, verdict if least == CONTIGUOUS else least, [why])
        return Finding(proof, [], Counter(), None, [], look.problems, "", look.is_settled)

    def end_of(self, symbol: str, day: date) -> datetime:
        """Up to when a day can be audited: its end or, of today, what is sealed."""
        end = midnight(day) + DAY
        if datetime.now(UTC) >= end:
            return end
        sealed = db.sealable(self._connection, [symbol]).get(symbol)
        until = sealed.sealed_until if sealed else None
        return min(end, max(midnight(day), bars.floor(until, MINUTE))) if until else midnight(day)

    def _look(self, symbol: str, day: date, reader: Callable[[Iterator[canonical.Block]], Side]) -> _Look:
        start, end = midnight(day), self.end_of(symbol, day)
        began = datetime.now(UTC)
        with ThreadPoolExecutor(1) as pool:
            second = self._beside_it
            bars_too = pool.submit(_false_bars, second, symbol, start, end) if second is not None else None
            side = self._side(symbol, (start, end), reader)
        false_bars = bars_too.result() if bars_too else _false_bars(self._connection, symbol, start, end)
        before, after = canonical.ids_beside(self._connection, symbol, start, end)
        low, high = _ends(side, before, after)
        absent = joined(sorted([*side.absent, *_joints(side, low, high)]))
        absent, problems = self._accounted(symbol, (start, end), absent, (low, high))
        doubled = side.trades - _known(side)
        if doubled:
            problems.append(f"{doubled} {'id is' if doubled == 1 else 'ids are'} stored twice")
        problems += false_bars
        words = [f"nothing earlier is stored than {side.first_at:%H:%M:%S}"] if before is None and side.first_at else []
        if end == start:
            words.append("nothing of the day is sealed yet")
        elif end < start + DAY:
            words.append(f"the day is audited up to {end:%H:%M}")
        if not side.trades and end > start:
            words.append("no trade of it is stored")
        is_settled = self._is_settled(symbol, absent, began)
        words += [] if is_settled else ["trades of it are being stored: audit it again"]
        return _Look(side, problems, absent, "; ".join(words), is_settled)

    def _is_settled(self, symbol: str, absent: list[Run], began: datetime) -> bool:
        """Whether none of `absent` was stored since: of a proof without it nobody could tell later what it had."""
        if not absent:
            return True
        filled = filled_since(self._connection, symbol, absent[0][0], absent[-1][1], began - CLOCK)
        return not any(one[0] <= run[1] and one[1] >= run[0] for run in filled for one in absent)

    def _accounted(
        self, symbol: str, span: tuple[datetime, datetime], absent: list[Run], ends: tuple[int | None, int | None]
    ) -> tuple[list[Run], list[str]]:
        """Which ids of `absent`, between `ends`, are really missing, and what the open gaps say wrongly of them."""
        low, high = ends
        if low is None or high is None:
            return absent, []
        clipped = [
            (max(low, gap.first_trade_id), min(high, gap.last_trade_id))
            for gap in db.open_gaps(self._connection, symbol)
        ]
        listed = joined(sorted(run for run in clipped if run[0] <= run[1]))
        if absent == listed:
            return absent, []
        for one in canonical.ids_around(self._connection, symbol, *span, (low, high)):
            absent = ids.without(absent, (one, one))
        doubts = [(run, -1, "are absent, and no gap") for run in _less(absent, listed)]
        doubts += [(run, 1, "are listed as a gap, and are not") for run in _less(listed, absent)]
        # Trades may have been stored since they were read, so each is looked at once more.
        return absent, [
            f"ids {run[0]} to {run[1]} {words}"
            for run, sign, words in doubts[:PROBLEMS_MAX]
            if canonical.surplus(self._connection, symbol, *span, run) * sign > 0
        ]

    def _side(
        self, symbol: str, span: tuple[datetime, datetime], reader: Callable[[Iterator[canonical.Block]], Side]
    ) -> Side:
        try:
            return reader(canonical.stored_blocks(self._connection, symbol, *span))
        except canonical.OutOfOrderError as error:
            log.info("%s: the server sorts them", error)
            return reader(canonical.stored_blocks(self._connection, symbol, *span, by_id=True))


def _false_bars(connection: db.Connection, symbol: str, start: datetime, end: datetime) -> list[str]:
    """What is wrong with the sealed bars of a time."""
    sealed = db.sealable(connection, [symbol]).get(symbol)
    until = sealed.sealed_until if sealed else None
    if until is None:
        return []
    wrong = canonical.wrong_bars(connection, symbol, start, min(end, bars.floor(until, MINUTE)))
    if not wrong:
        return []
    which = f"the first is that of {wrong[0].resolution} s from {wrong[0].timestamp:%H:%M}"
    return [f"{len(wrong)} sealed bars are not what their trades make, {which}: python -m tools.reseal mends them"]


def _said(kind: Kind, number: int) -> str:
    verb = ("differs" if number == 1 else "differ") if kind is Kind.DIFFERS else kind
    return f"{number:,} {'trade' if number == 1 else 'trades'} {verb}"


def joined(runs: list[Run]) -> list[Run]:
    """`runs`, which rise, with neighbours joined."""
    found: list[Run] = []
    for first, last in runs:
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def _ends(side: Side, before: int | None, after: int | None) -> tuple[int | None, int | None]:
    """The first and the last id that the day must have, by the ids stored `before` and `after` it; None: not known.
    Where time runs back at midnight, these lie between those of the day."""
    lows = [one for one in (before and before + 1, side.first) if one is not None]
    highs = [one for one in (after and after - 1, side.last) if one is not None]
    return min(lows, default=None), max(highs, default=None)


def _joints(side: Side, low: int | None, high: int | None) -> list[Run]:
    """What is absent before the first and after the last stored id of the day."""
    ends = [(low, high)]
    if side.first is not None and side.last is not None:
        ends = [(low, side.first - 1), (side.last + 1, high)]
    return [(one, other) for one, other in ends if one is not None and other is not None and one <= other]


def _less(runs: list[Run], gone: list[Run]) -> list[Run]:
    """The first runs of ids that are in `runs` and not in `gone`."""
    found: list[Run] = []
    for run in sorted({*runs} - {*gone})[:PROBLEMS_MAX]:
        rest = [run]
        for one in gone:
            if one[0] <= run[1] and one[1] >= run[0]:
                rest = ids.without(rest, one)
        found += rest
    return found


def _known(side: Side) -> int:
    """How many ids are stored."""
    if side.first is None or side.last is None:
        return 0
    return side.last - side.first + 1 - sum(last - first + 1 for first, last in side.absent)


def _least(look: _Look) -> str:
    return DIFFERENT if look.problems else GAPPED if look.absent else CONTIGUOUS


def _proof(symbol: str, day: date, look: _Look, verdict: str, words: list[str]) -> Proof:
    side = look.side
    if verdict != EQUAL and look.reason:
        words = [*words, look.reason]
    reason = "; ".join(word for word in (*words, *look.problems) if word)
    return Proof(
        number=0,
        symbol=symbol,
        day=day,
        verdict=verdict,
        reason=_bounded(reason),
        first_trade_id=side.first,
        last_trade_id=side.last,
        trades=side.trades,
        missing=look.missing,
        sha256=side.hash.sha256,
        merkle_root=side.hash.merkle_root,
        compared_with="",
        source_sha256="",
        proven_at=datetime.now(UTC),
        blocks="".join(f"{number} {leaf}\n" for number, leaf in side.hash.blocks.items()),
    )


def _bounded(reason: str) -> str:
    return reason if len(reason) <= REASON_CHARS_MAX else reason[: REASON_CHARS_MAX - 1] + "…"
