"""The hashes of a proof: RFC 6962's tree with its published answers, a day's blocks, the chain."""

import hashlib

import pytest

from model import proof

# The leaves and roots with which the Certificate Transparency project tests its trees (Google's and others' logs).
LEAVES = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(9))
def test_the_tree_is_that_of_rfc_6962(size: int) -> None:
    """The published root of the first 0 to 8 leaves."""
    assert proof.merkle_root([proof.leaf_hash(leaf) for leaf in LEAVES[:size]]).hex() == ROOTS[size]


@pytest.mark.parametrize(
    ("trade_id", "block"),
    [(1, 0), (65_535, 0), (65_536, 1), (131_071, 1), (131_072, 2), (4_000_000_000, 61_035), (2**63 - 1, 2**47 - 1)],
)
def test_a_block_begins_at_a_multiple_of_its_size(trade_id: int, block: int) -> None:
    """Whatever the first id of the day is, so that two recorders cut in the same places."""
    assert proof.block_of(trade_id) == block


def test_a_day_is_hashed_as_a_whole_and_by_blocks() -> None:
    """SHA-256 of all lines as sha256sum gives it; a leaf for each block, which makes a root with the others."""
    blocks = {
        3: b"262143,1.00000000,1.00000000,0,1\n",
        4: b"262144,1.00000000,1.00000000,1,0\n",
        9: b"600000,1.00000000,1.00000000,2,0\n",
    }
    day = proof.DayHash()
    for number, lines in blocks.items():
        day.add(number, lines)
    leaves = {number: hashlib.sha256(b"\0" + lines).digest() for number, lines in blocks.items()}
    pair = hashlib.sha256(b"\1" + leaves[3] + leaves[4]).digest()
    assert day.sha256 == hashlib.sha256(b"".join(blocks.values())).hexdigest()
    assert day.blocks == {number: leaf.hex() for number, leaf in leaves.items()}
    assert day.merkle_root == hashlib.sha256(b"\1" + pair + leaves[9]).hexdigest()


def test_a_day_without_a_trade_has_the_hash_of_nothing() -> None:
    """As whole and as tree."""
    day = proof.DayHash()
    assert (day.sha256, day.merkle_root, day.blocks) == (proof.NO_TRADES, proof.NO_TRADES, {})
    assert hashlib.sha256(b"").hexdigest() == proof.NO_TRADES


def test_a_proof_is_chained_to_the_one_before() -> None:
    """Its hash can be made anew with sha256sum: the hash before and its fields, a line each."""
    text = f"{proof.CHAIN_START}\n1\nBTCUSDT\n2025-03-01"
    assert proof.chained(proof.CHAIN_START, ["1", "BTCUSDT", "2025-03-01"]) == hashlib.sha256(text.encode()).hexdigest()
    assert proof.chained("0" * 64, ["a", "b"]) != proof.chained("1" + "0" * 63, ["a", "b"])
