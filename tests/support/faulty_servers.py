"""Servers on loopback that fail at random in the ways of real ones, in a process of their own.

Run python -m tests.support.faulty_servers COUNT SHARE SEED: prints the servers' urls, one per line, and serves until killed.
``SHARE`` of the requests meet a fault; requests that say ``forbidden`` are always refused.
"""

import asyncio
import json
import random
import sys
from typing import Any

from aiohttp import web


def said(text: str, finish: str | None = "stop") -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}


class Faulty:
    """One server; now and then it is down for a while."""

    def __init__(self, share: float, seed: int):
        self.share, self.random = share, random.Random(seed)
        self.down_until = 0.0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        question = (await request.json())["messages"][-1]["content"]
        now = asyncio.get_running_loop().time()
        if now < self.down_until:
            return web.Response(status=503, text="starting")
        if self.random.random() < self.share:
            return await self.fault(request, now)
        if "forbidden" in question:
            return web.json_response({"error": "filtered by the content policy"}, status=400)
        await asyncio.sleep(self.random.uniform(0.0, 0.02))
        return web.json_response(said(f"re: {question}"))

    async def fault(self, request: web.Request, now: float) -> web.StreamResponse:
        kind = self.random.choice(["500", "429", "503", "html", "cut", "close", "abort", "null", "empty", "down", "slow"])
        if kind in ("500", "503"):
            return web.Response(status=int(kind), text="boom")
        if kind == "429":
            return web.Response(status=429, text="slow down", headers={"Retry-After": "0.1"})
        if kind == "close" and request.transport:
            request.transport.close()
        if kind == "down":
            self.down_until = now + 0.3
            return web.Response(status=503, text="restarting")
        if kind == "slow":
            await asyncio.sleep(0.5)
        bodies = {"html": "<html>", "cut": json.dumps(said("x"))[:40], "empty": json.dumps(said(""))}
        ends = {"abort": "abort", "null": None}
        text = bodies.get(kind) or json.dumps(said("half an", ends.get(kind, "content_filter")))
        return web.Response(text=text, content_type="application/json")


async def version(_: web.Request) -> web.Response:
    return web.json_response({"version": "9.9"})


async def serve(count: int, share: float, seed: int) -> None:
    for i in range(count):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", Faulty(share, seed + i).answer)
        app.router.add_get("/version", version)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(f"{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
