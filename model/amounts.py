"""Arithmetic with amounts: exact, or rounded once and said so. Never a float, and never decimal's default 28 digits."""

from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, Inexact, InvalidOperation

_DIGITS = 100
"""More than any sum of products of two amounts has: 24 before the point and 16 behind it, and those of their number."""
EXACT = Context(_DIGITS, traps=[Inexact, InvalidOperation, DivisionByZero])
"""Adds and multiplies without rounding, or raises decimal.Inexact."""
_ROUNDED = Context(_DIGITS, ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero])
_EIGHTH = Decimal("1E-8")


def average_price(quote_volume: Decimal, volume: Decimal) -> Decimal | None:
    """The volume-weighted average price, quote_volume / volume, rounded to 8 decimals, half to even; None: no volume.

    One division at the end, of exact sums, so it is rounded only once.
    """
    return _ROUNDED.quantize(_ROUNDED.divide(quote_volume, volume), _EIGHTH) if volume else None
