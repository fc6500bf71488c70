"""Two sides merged by id against a comparison that holds both in memory."""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby, pairwise

from hypothesis import given
from hypothesis import strategies as st

from model.proof import BLOCK_IDS, block_of, leaf_hash
from proof.compare import COLUMNS, Difference, Kind, Side, compare, read
from storage.canonical import Block

VARIANTS = ("1.00000000,2.00000000,1000,0", "1.00000001,2.00000000,1000,0", "1.00000000,2.00000000,2000,1")
"""What a trade may be like, but for its id."""
IDS = st.sampled_from([block * BLOCK_IDS + offset for block in range(1, 5) for offset in (0, 1, 2, BLOCK_IDS - 1)])
Rows = Mapping[int, list[str]]
"""The variants of each id: several where it is stored twice."""

HERE = st.dictionaries(IDS, st.lists(st.sampled_from(VARIANTS), min_size=1, max_size=2, unique=True))
THERE = st.dictionaries(IDS, st.sampled_from(VARIANTS).map(lambda one: [one]))


def lines(rows: Rows) -> list[str]:
    """The canonical lines, by rising id."""
    return [f"{number},{variant}\n" for number in sorted(rows) for variant in rows[number]]


def there(rows: Rows) -> Iterator[tuple[int, bytes]]:
    """The blocks as a file has them."""
    for number, group in groupby(lines(rows), lambda line: block_of(int(line.partition(",")[0]))):
        yield number, "".join(group).encode()


def here(rows: Rows) -> Iterator[Block]:
    """The blocks as the table has them."""
    last = 0
    for number, text in there(rows):
        ids = [int(line.split(b",")[0]) for line in text.splitlines()]
        runs = [(low + 1, high - 1) for low, high in pairwise([last, *ids] if last else ids) if high > low + 1]
        last = ids[-1]
        yield Block(number, text, runs)


def naive(ours: Rows, theirs: Rows) -> list[Difference]:
    """The differences, id by id."""
    found = []
    for number in sorted({*ours, *theirs}):
        mine = [f"{number},{variant}" for variant in ours.get(number, [])]
        other = [f"{number},{variant}" for variant in theirs.get(number, [])]
        if len(mine) == len(other) == 1 and mine != other:
            found.append(Difference(number, Kind.DIFFERS, mine[0], other[0]))
        elif mine != other:
            found += [Difference(number, Kind.ONLY_HERE, line, "") for line in mine if line not in other]
            found += [Difference(number, Kind.ONLY_THERE, "", line) for line in other if line not in mine]
    return found


def facts(side: Side) -> tuple[object, ...]:
    """All that is known of a side."""
    return side.hash.sha256, side.hash.blocks, side.trades, side.first, side.last, side.absent, side.first_at


@given(HERE, THERE)
def test_each_difference_is_found_once(ours: Rows, theirs: Rows) -> None:
    """Whatever is on the two sides: missing blocks, missing ids, other columns, an id that is stored twice."""
    found: list[Difference] = []
    compare(here(ours), there(theirs), found.append)
    assert found == naive(ours, theirs)


@given(HERE, THERE)
def test_what_is_stored_does_not_depend_on_the_other_side(ours: Rows, theirs: Rows) -> None:
    """Hashes, number, ends and absent runs are those of our lines."""
    text = "".join(lines(ours)).encode()
    ids = sorted(ours)
    first_at = datetime.fromtimestamp(int(ours[ids[0]][0].split(",")[2]) // 1000, UTC) if ids else None
    expected = (
        hashlib.sha256(text).hexdigest(),
        {number: leaf_hash(block).hex() for number, block in there(ours)},
        text.count(b"\n"),
        ids[0] if ids else None,
        ids[-1] if ids else None,
        [(low + 1, high - 1) for low, high in pairwise(ids) if high > low + 1],
        first_at,
    )
    assert facts(compare(here(ours), there(theirs), lambda _: None)) == expected
    assert facts(read(here(ours))) == expected


def test_the_columns_that_differ() -> None:
    """By their names in the table; a trade that is on one side only has none."""
    line = "7,1.00000000,2.00000000,1000,0"
    for place, name in enumerate(COLUMNS):
        other = ",".join("9" if number == place else part for number, part in enumerate(line.split(",")))
        assert Difference(7, Kind.DIFFERS, line, other).columns == [name]
    assert Difference(7, Kind.DIFFERS, line, "7,9,2.00000000,1000,1").columns == ["price", "buyer_is_maker"]
    assert Difference(7, Kind.ONLY_HERE, line, "").columns == []
