"""The words of a finding, for a reader and as JSON."""

import json
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

from proof import text
from proof.compare import Difference, Kind
from proof.days import Finding
from proof.klines import MinuteDifference
from proof.recheck import Kind as Fate
from storage.proofs import Proof

AT = datetime(2025, 3, 2, 1, 2, 3, 45, tzinfo=UTC)
PROOF = Proof(7, "BTCUSDT", date(2025, 3, 1), "equal", "", 11, 1_012, 1_002, 0, "a" * 64, "b" * 64, "", "", AT)


def finding(proof: Proof, **changes: object) -> Finding:
    """A finding of which only these matter."""
    return Finding(proof, [], Counter(), None, [], [], "", True)._replace(**changes)  # type: ignore[arg-type]


def test_a_day_that_is_good_is_one_line() -> None:
    """With the name of the file that it was compared with."""
    proof = PROOF._replace(compared_with="https://data.binance.vision/…/BTCUSDT-trades-2025-03-01.zip")
    assert text.of(finding(proof)) == (
        "BTCUSDT    2025-03-01  equal              1,002 trades         0 missing  compared with"
        " BTCUSDT-trades-2025-03-01.zip"
    )
    assert text.of(finding(PROOF)) == "BTCUSDT    2025-03-01  equal              1,002 trades         0 missing"


def test_what_is_wrong_has_a_line_each_and_is_said_once() -> None:
    """Differences, minutes, problems; of many minutes the first, and how many more."""
    differences = [
        Difference(11, Kind.DIFFERS, "11,1.00000000,1.00000000,5,0", "11,2.00000000,1.00000000,6,0"),
        Difference(12, Kind.ONLY_HERE, "12,1.00000000,1.00000000,5,0", ""),
        Difference(13, Kind.ONLY_THERE, "", "13,1.00000000,1.00000000,5,0"),
    ]
    minutes = [MinuteDifference(datetime(2025, 3, 1, 0, n, tzinfo=UTC), ["close"], 3, 3) for n in range(7)]
    proof = PROOF._replace(
        verdict="different", missing=1, reason="1 trade differs; ids 14 to 15 are absent, and no gap"
    )
    found = finding(
        proof,
        differences=differences,
        counts=Counter(one.kind for one in differences),
        file=Path("/data/audit/BTCUSDT-2025-03-01.csv"),
        minutes=minutes,
        problems=["ids 14 to 15 are absent, and no gap"],
    )
    assert text.of(found).splitlines() == [
        "BTCUSDT    2025-03-01  different          1,002 trades         1 missing  1 trade differs",
        "  trade 11 differs in price, timestamp: here 11,1.00000000,1.00000000,5,0, there 11,2.00000000,1.00000000,6,0",
        "  trade 12 is only here: 12,1.00000000,1.00000000,5,0",
        "  trade 13 is only there: 13,1.00000000,1.00000000,5,0",
        "  all differences (3): /data/audit/BTCUSDT-2025-03-01.csv",
        *[f"  00:0{n}: close (3 trades here, 3 there)" for n in range(5)],
        "  … and 2 more",
        "  ids 14 to 15 are absent, and no gap",
    ]
    row = json.loads(text.as_json(found))
    assert row["differences"] == {"differs": 1, "only here": 1, "only there": 1}
    assert row["first_differences"][0] == {
        "trade_id": 11,
        "kind": "differs",
        "here": "11,1.00000000,1.00000000,5,0",
        "there": "11,2.00000000,1.00000000,6,0",
        "columns": ["price", "timestamp"],
    }
    assert (row["minutes"][6], row["problems"]) == ("00:06: close (3 trades here, 3 there)", found.problems)
    assert row["all_differences"] == "/data/audit/BTCUSDT-2025-03-01.csv"


def test_a_proof_as_json_has_its_columns() -> None:
    """Times as ISO 8601 with six decimals, no blocks."""
    assert text.values(PROOF) == {
        "number": 7,
        "symbol": "BTCUSDT",
        "day": "2025-03-01",
        "verdict": "equal",
        "reason": "",
        "first_trade_id": 11,
        "last_trade_id": 1_012,
        "trades": 1_002,
        "missing": 0,
        "sha256": "a" * 64,
        "merkle_root": "b" * 64,
        "compared_with": "",
        "source_sha256": "",
        "proven_at": "2025-03-02T01:02:03.000045Z",
        "previous": "",
        "hash": "",
    }


def test_the_sum_of_a_recheck() -> None:
    """How many days became what, and whether the chain is whole."""
    kinds = Counter({Fate.UNCHANGED: 2, Fate.REVISED: 1})
    assert text.recheck_sum(kinds, 9, 0) == "3 days looked at: 2 unchanged, 1 revised; the chain of 9 proofs is whole"
    assert text.recheck_sum(Counter(), 1, 1) == "0 days looked at; the chain of 1 proof is broken"
    assert text.recheck_sum(Counter(), 0, 0) == "nothing was proven yet: audit.py without --recheck does it"
