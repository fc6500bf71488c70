"""What an audit has found, in words and as JSON."""

import json
from collections import Counter

from proof.compare import Difference, Kind
from proof.days import Finding
from proof.recheck import Kind as Fate
from proof.recheck import Recheck
from storage.proofs import Proof

MINUTES_SHOWN_MAX, PROBLEMS_SHOWN_MAX = 5, 20


def values(proof: Proof) -> dict[str, object]:
    """The columns of a proof but for its blocks, as JSON has them."""
    found = proof._asdict() | {"day": str(proof.day), "proven_at": proof.as_text()["proven_at"]}
    del found["blocks"]
    return found


def as_json(found: Finding) -> str:
    """A line of JSON: the proof, and what differs."""
    more = {
        "differences": {str(kind): number for kind, number in found.counts.items()},
        "first_differences": [one._asdict() | {"columns": one.columns} for one in found.differences],
        "all_differences": str(found.file) if found.file else None,
        "minutes": [str(one) for one in found.minutes],
        "problems": found.problems,
        "untried": found.untried,
    }
    return json.dumps(values(found.proof) | more, ensure_ascii=False)


def of(found: Finding) -> str:
    """A line for the day, and one for each of the first things that are wrong with it."""
    proof = found.proof
    # Problems have lines of their own.
    words = [part for part in proof.reason.split("; ") if part and part not in found.problems]
    words += [f"compared with {proof.compared_with.rpartition('/')[2]}"] if proof.compared_with else []
    head = f"{proof.symbol:<10} {proof.day}  {proof.verdict:<12} {proof.trades:>11,} trades {proof.missing:>9,} missing"
    lines = [f"{head}  {'; '.join(words)}".rstrip()]
    lines += [f"  {_difference(one)}" for one in found.differences]
    if found.file:
        lines.append(f"  all differences ({found.counts.total():,}): {found.file}")
    for things, most in ((found.minutes, MINUTES_SHOWN_MAX), (found.problems, PROBLEMS_SHOWN_MAX)):
        lines += [f"  {one}" for one in things[:most]]
        lines += [f"  … and {len(things) - most} more"] if len(things) > most else []
    return "\n".join(lines)


def _difference(one: Difference) -> str:
    if one.kind is Kind.DIFFERS:
        return f"trade {one.trade_id} differs in {', '.join(one.columns)}: here {one.here}, there {one.there}"
    return f"trade {one.trade_id} is {one.kind}: {one.here or one.there}"


def recheck_json(found: Recheck) -> str:
    """A line of JSON: the proof, and what became of the day."""
    more = {"became": str(found.kind), "added": found.added, "changed_blocks": found.blocks}
    return json.dumps(values(found.proof) | more, ensure_ascii=False)


def recheck_sum(kinds: Counter[Fate], proofs: int, broken: int) -> str:
    """A line for all days, and for the chain."""
    days = kinds.total()
    parts = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    looked = f"{days} {'day' if days == 1 else 'days'} looked at{': ' if parts else ''}{parts}"
    chain = f"the chain of {proofs} {'proof' if proofs == 1 else 'proofs'} is {'broken' if broken else 'whole'}"
    return f"{looked}; {chain}" if proofs else "nothing was proven yet: audit.py without --recheck does it"


def of_recheck(found: Recheck) -> str:
    """A line for what became of a proven day, and one for each block that was changed in silence."""
    proof = found.proof
    head = (
        f"{proof.symbol:<10} {proof.day}  {found.kind:<10} since {proof.proven_at:%Y-%m-%d %H:%M:%S} ({proof.verdict})"
    )
    if found.kind is Fate.REVISED:
        added = "1 trade was" if found.added == 1 else f"{found.added:,} trades were"
        return f"{head}: {added} added since, in gaps or at the ends; all others are unchanged"
    lines = [head]
    lines += [
        f"  ids {first} to {last}: a trade was changed, removed or added without a record"
        for first, last in found.blocks
    ]
    return "\n".join(lines)
