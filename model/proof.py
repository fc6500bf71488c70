"""What a day's trades are proven with: their canonical text, its hashes, and the chain of the proofs. Pure, no I/O.

A trade is one line, `id,price,quantity,ms,0|1` and a line feed: price and quantity with eight decimals, `ms` the time
in milliseconds since 1970 (UTC), 1 if the buyer is the maker. A day is the lines of its trades by rising id. Its
SHA-256 is that of the text, as `sha256sum` gives it. Its Merkle root is that of RFC 6962 (section 2.1) over the blocks
of the day; a block has the lines of 65,536 ids, from a multiple of 65,536 to before the next.
"""

import hashlib
from collections.abc import Sequence

BLOCK_IDS = 65_536
"""Ids in a block; so two recorders compare about 80 hashes a day of five million trades."""
NO_TRADES = hashlib.sha256().hexdigest()
"""Of a day without a trade: the hash of nothing, which RFC 6962 gives an empty tree too."""
CHAIN_START = "0" * 64
"""What the first proof has as the hash of the one before."""


def block_of(trade_id: int) -> int:
    """The number of the block that an id is in."""
    return trade_id // BLOCK_IDS


def leaf_hash(lines: bytes) -> bytes:
    """The hash of a block: RFC 6962's of a leaf."""
    return hashlib.sha256(b"\x00" + lines).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root of the tree over the hashes of leaves (RFC 6962, section 2.1)."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


class DayHash:
    """Grows with the blocks of a day, oldest first: the SHA-256 of all their lines, and the hash of each block."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self.blocks: dict[int, str] = {}

    def add(self, block: int, lines: bytes) -> None:
        """Takes in all lines of a block, of which there is at least one."""
        self._whole.update(lines)
        self.blocks[block] = leaf_hash(lines).hex()

    @property
    def sha256(self) -> str:
        """Of all lines, in hexadecimal digits."""
        return self._whole.hexdigest()

    @property
    def merkle_root(self) -> str:
        """Of the tree over the blocks, in hexadecimal digits."""
        return merkle_root([bytes.fromhex(leaf) for leaf in self.blocks.values()]).hex()


def chained(previous: str, fields: Sequence[str]) -> str:
    """The hash of a proof: of that of the one before it and its own fields, a line each."""
    return hashlib.sha256("\n".join([previous, *fields]).encode()).hexdigest()
