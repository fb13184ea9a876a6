"""Open-loop load: requests come by a Poisson process whether or not earlier ones have been answered.

A generator that waits for answers slows down with the server it measures and hides what its users
would feel (coordinated omission); this one does not.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import aiohttp

GIVE_UP_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One request."""

    at_s: float
    """When it was sent, in Unix time."""
    took_s: float
    status: int
    """HTTP status; 0 where there was no answer in time."""


async def ask(session: aiohttp.ClientSession, url: str, body: bytes) -> Answer:
    """Send one request and wait for its answer."""
    at_s, began_s = time.time(), time.perf_counter()
    try:
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
            await response.read()
            status = response.status
    except (aiohttp.ClientError, TimeoutError):
        status = 0
    return Answer(at_s=at_s, took_s=time.perf_counter() - began_s, status=status)


async def open_loop(url: str, body: bytes, *, per_s: float, for_s: float, seed: int) -> list[Answer]:
    """Send `per_s` requests a second on average for `for_s` seconds; returns when all are answered or given up."""
    chance = random.Random(seed)
    timeout = aiohttp.ClientTimeout(total=GIVE_UP_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks: list[asyncio.Task[Answer]] = []
        now_s = began_s = asyncio.get_running_loop().time()
        while now_s < began_s + for_s:
            now_s += chance.expovariate(per_s)
            await asyncio.sleep(max(0.0, now_s - asyncio.get_running_loop().time()))
            tasks.append(asyncio.create_task(ask(session, url, body)))
        return list(await asyncio.gather(*tasks))


async def closed_loop(url: str, body: bytes, *, clients: int, for_s: float) -> list[Answer]:
    """Have `clients` ask one request after another for `for_s` seconds: what the server can do at most."""
    until_s = time.perf_counter() + for_s

    async def client(session: aiohttp.ClientSession) -> list[Answer]:
        answers = []
        while time.perf_counter() < until_s:
            answers.append(await ask(session, url, body))
        return answers

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=GIVE_UP_S)) as session:
        parts = await asyncio.gather(*(client(session) for _ in range(clients)))
    return [answer for part in parts for answer in part]
