"""The clients of the part `api`, in a process of their own: some ask for the latest price, some are open dashboards.

    python -m tools.bench.api_load ADDRESS SYMBOL

Reads orders, one line of JSON each ({"seconds": 10, "clients": 50, "per_second": 2, "dashboards": 20}), and answers
each with one line: the milliseconds of every answer, how many were bad, and how many events the dashboards got.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any

import aiohttp


async def ask(session: aiohttp.ClientSession, url: str, until: float, pause_s: float) -> list[tuple[float, bool]]:
    """The milliseconds of each answer, and whether it was good; at a steady pace, as from independent clients."""
    found: list[tuple[float, bool]] = []
    at = time.monotonic() + random.uniform(0, pause_s)
    while at < until:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        async with session.get(url) as answer:
            await answer.read()
            # Measured from when it was due, so that a stall counts for each request that it delays.
            found.append(((time.monotonic() - at) * 1_000, answer.status == 200))
        at += pause_s
    return found


async def look(session: aiohttp.ClientSession, url: str, until: float) -> int:
    """How many events a dashboard got."""
    events = 0
    async with session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as answer:
        async for line in answer.content:
            events += line.startswith(b"event: ")
            if time.monotonic() > until:
                break
    return events


async def load(address: str, symbol: str, order: dict[str, Any]) -> dict[str, Any]:
    """The answer to an order."""
    until = time.monotonic() + order["seconds"]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        asking = [
            ask(session, f"{address}/api/latest/{symbol}", until, 1 / order["per_second"])
            for _ in range(order["clients"])
        ]
        looking = [look(session, f"{address}/api/stream?mode=ticks", until) for _ in range(order["dashboards"])]
        answers, events = await asyncio.gather(asyncio.gather(*asking), asyncio.gather(*looking))
    flat = [one for found in answers for one in found]
    return {"ms": [ms for ms, _ in flat], "bad": sum(not good for _, good in flat), "events": events}


def main(argv: list[str] | None = None) -> int:
    """Runs the ordered loads until its standard input closes."""
    address, symbol = sys.argv[1:] if argv is None else argv
    for line in sys.stdin:
        print(json.dumps(asyncio.run(load(address, symbol, json.loads(line)))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
