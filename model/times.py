"""Moments on the grid of stored times: whole milliseconds, UTC."""

from datetime import UTC, date, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def floor_ms(when: datetime) -> datetime:
    """The last millisecond at or before `when`."""
    below = when.microsecond % 1000
    return when.replace(microsecond=when.microsecond - below) if below else when


def midnight(day: date) -> datetime:
    """The start of a UTC day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
