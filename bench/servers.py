"""Completions per second through OpenAI-compatible servers, beside plain httpx, by requests in flight.

python -m bench.servers [--chaos SECONDS]: a server on loopback that answers 14 kB at once, and a client held to one core.
``--chaos``: instead, twenty servers that fail at random for so long; every request must come back once.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bench.measure import ROOT, Line, table
from distillery.generation.config import Sampling, ServerSettings
from distillery.generation.engine import Request
from distillery.generation.openai_engine import ServerEngine

IN_FLIGHT, TEXT, LIMIT = (64, 512, 2048, 8192), "x" * 14_000, 60.0


def settings(urls: list[str], in_flight: int) -> ServerSettings:
    return ServerSettings("server", urls, "m", 4096, in_flight, 60.0, 60.0, None, 1)


def ask(text: str) -> Request:
    return Request(({"role": "user", "content": text},), "r", Sampling(0.6, 0.95, 10), 1)


async def serve() -> None:
    """A server that answers at once; prints its port."""
    from aiohttp import web

    choice = {"message": {"content": TEXT}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=8192).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@contextmanager
def started(module: str, *arguments: str, count: int = 1) -> Iterator[list[str]]:
    """Urls of servers in another process."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    try:
        yield [f"http://127.0.0.1:{process.stdout.readline().strip()}/v1" for _ in range(count)]
    finally:
        process.kill()
        process.wait()


def ours(urls: list[str], in_flight: int, count: int) -> float:
    """Completions per second of the engine."""
    engine, begun, done = ServerEngine(settings(urls, in_flight)), time.monotonic(), 0
    for i in range(count):
        engine.submit(ask(str(i)))
    while done < count:
        done += len(engine.poll())
    rate = count / (time.monotonic() - begun)
    engine.close()
    return rate


async def plain(url: str, in_flight: int, count: int) -> float:
    """Completions per second of httpx with as many requests in flight, at most LIMIT seconds."""
    import httpx

    room, done = asyncio.Semaphore(in_flight), 0
    limits = httpx.Limits(max_connections=None)

    async def one(client: Any, i: int) -> None:
        nonlocal done
        async with room:
            answer = await client.post(f"{url}/chat/completions", json={"messages": [str(i)]})
            done += len(answer.json()["choices"])

    begun = time.monotonic()
    async with httpx.AsyncClient(limits=limits, timeout=LIMIT) as client:
        waiting = asyncio.gather(*(one(client, i) for i in range(count)), return_exceptions=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(waiting, LIMIT)
    return done / (time.monotonic() - begun)


def throughput() -> None:
    lines = []
    cores = sorted(os.sched_getaffinity(0))
    with started("bench.servers", "--serve") as urls:
        os.sched_setaffinity(0, {cores[-1]})
        for in_flight in IN_FLIGHT:
            count = max(4000, 2 * in_flight)
            mine, theirs = ours(urls, in_flight, count), asyncio.run(plain(urls[0], in_flight, count))
            ratio = f"{mine / theirs:.1f} x" if theirs else "-"
            lines.append(Line(f"{in_flight:,} in flight", f"{mine:.0f} completions/s", f"httpx: {theirs:.0f}", ratio))
    print(table(lines))


def chaos(seconds: float) -> None:
    """Asks servers that fail at random until the time is over; reports what came of every request."""
    ends: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    asked = 0
    with started("tests.support.faulty_servers", "20", "0.2", "0", count=20) as urls:
        engine, begun = ServerEngine(settings(urls, 512)), time.monotonic()
        while time.monotonic() - begun < seconds or sum(seen.values()) < asked:
            while time.monotonic() - begun < seconds and asked - sum(seen.values()) < 1024:
                engine.submit(ask(f"{asked}{' forbidden' if asked % 50 == 0 else ''}"))
                asked += 1
            for completion in engine.poll():
                seen[completion.key] += 1
                ends[completion.finish_reason] += 1
        engine.close()
    twice = sum(count > 1 for count in seen.values())
    print(f"{asked} requests in {seconds:g} s: {dict(ends)}; lost {asked - len(seen)}, twice {twice}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.servers")
    parser.add_argument("--chaos", type=float, metavar="SECONDS")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(serve())
    elif asked.chaos:
        chaos(asked.chaos)
    else:
        throughput()


if __name__ == "__main__":
    main()
