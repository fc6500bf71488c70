"""The time and the days of the stand-in exchange: microseconds since 1970 (UTC), and UTC days counted from 1970."""

import time
from collections.abc import Callable
from datetime import date

DAY_US = 86_400_000_000

_EPOCH = date(1970, 1, 1).toordinal()


class Clock:
    """The clock in use: the machine's, or one that only the tape moves (`virtual_us`: where it starts)."""

    def __init__(self, virtual_us: int | None, newest_us: Callable[[], int]) -> None:
        self._virtual_us = virtual_us
        self._newest_us = newest_us

    @property
    def is_real(self) -> bool:
        """Whether it is the machine's."""
        return self._virtual_us is None

    def now_us(self) -> int:
        """The time; on the virtual clock that of the newest trade."""
        if self._virtual_us is None:
            return time.time_ns() // 1000
        return max(self._virtual_us, self._newest_us())

    def shown_us(self, lag_s: float) -> int:
        """Up to when a database that is `lag_s` behind knows what has happened, whether something traded or not."""
        return time.time_ns() // 1000 - int(lag_s * 1e6) if self._virtual_us is None else 0


def day_of(time_us: int) -> int:
    """The UTC day of a time."""
    return time_us // DAY_US


def day_text(day: int) -> str:
    """The day as YYYY-MM-DD."""
    return date.fromordinal(_EPOCH + day).isoformat()


def day_named(text: str) -> int:
    """The day that is written as YYYY-MM-DD. Raises ValueError."""
    day = date.fromisoformat(text).toordinal() - _EPOCH
    if day_text(day) != text:
        raise ValueError(f"{text!r} is not a day such as 2026-11-27")
    return day


def month_named(text: str) -> tuple[int, int]:
    """The first day of the month that is written as YYYY-MM, and that of the next. Raises ValueError."""
    first = day_named(f"{text}-01")
    year, month = (int(part) for part in text.split("-"))
    after = date(year + month // 12, month % 12 + 1, 1)
    return first, after.toordinal() - _EPOCH
