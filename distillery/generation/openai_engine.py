"""A model behind OpenAI-compatible servers: vLLM on other machines, or any service that speaks the same.

Requests go to the server with the fewest in flight. A server that fails is paused, with exponential
backoff, and its requests go to the others; the engine fails only when none has answered for ``patience`` seconds.
"""

import asyncio
import os
import random
import re
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

import httpx

from distillery.core.chat import without_system
from distillery.core.errors import EngineError
from distillery.core.model_locks import Lock
from distillery.generation.config import ServerSettings
from distillery.generation.engine import PROMPT_TOO_LONG, Completion, Request

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
_PROMPT = re.compile(r"\((\d+) in the (?:messages|prompt)")  # the error of servers that do not lower max_tokens themselves
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}


class Server:
    """One url, its requests in flight, and until when it is paused."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.in_flight = 0
        self.pause = FIRST_PAUSE
        self.rests_until = 0.0

    def failed(self) -> None:
        """One pause for all requests that fail together."""
        if time.monotonic() < self.rests_until:
            return
        self.rests_until = time.monotonic() + self.pause * random.uniform(0.7, 1.3)
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    def answered(self) -> None:
        self.pause, self.rests_until = FIRST_PAUSE, 0.0


def body_options(settings: ServerSettings, lock: Lock | None) -> dict[str, Any]:
    """What each request's body says beside messages and sampling, as vLLM and SGLang name it."""
    options: dict[str, Any] = {}
    if lock and lock.template_arguments:
        options["chat_template_kwargs"] = lock.template_arguments
    if lock and lock.template is not None:
        options["chat_template"] = lock.template_text
    return options | settings.extra_body


class RefusedError(Exception):
    """A server refused a request; retrying would not help."""


class ServerEngine:
    """The `Engine` over servers. Its requests run in an event loop on a thread of its own.

    ``lock`` says which chat template the server shall use and with what; None: its own. A server returns text without special
    tokens unless it has a reasoning parser, or ``extra_body`` asks for them (``skip_special_tokens: false`` of vLLM).
    """

    def __init__(self, settings: ServerSettings, lock: Lock | None = None):
        self.settings = settings
        self.options = body_options(settings, lock)
        self.servers = [Server(url) for url in settings.urls]
        self.key = os.environ.get(settings.api_key, "") if settings.api_key else ""
        if not self.servers:
            raise EngineError("the engine has no urls; give it at least one")
        if settings.api_key and not self.key:
            raise EngineError(f"the environment variable {settings.api_key} is empty; it must hold the servers' API key")
        self.name = "server"
        self.done: SimpleQueue[Completion | EngineError] = SimpleQueue()
        self.dead: EngineError | None = None
        self.trouble, self.troubled_since = "no answer", 0.0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True, name="servers")
        self.thread.start()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.AsyncClient(timeout=httpx.Timeout(settings.timeout, connect=10.0), limits=limits, headers=headers)
        self.room = asyncio.Semaphore(settings.max_num_seqs)

    def submit(self, request: Request) -> None:
        asyncio.run_coroutine_threadsafe(self._settle(request), self.loop)

    def poll(self) -> list[Completion]:
        if self.dead:
            raise self.dead
        found: list[Completion] = []
        try:
            answer = self.done.get(timeout=0.05)
            while True:
                if isinstance(answer, EngineError):
                    self.dead = answer
                    break
                found.append(answer)
                answer = self.done.get_nowait()
        except Empty:
            pass
        if self.dead and not found:
            raise self.dead
        return found

    def close(self) -> None:
        async def stop() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.client.aclose()

        asyncio.run_coroutine_threadsafe(stop(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def _settle(self, request: Request) -> None:
        """Retries one request until it is answered, or until no server has answered anything for too long."""
        async with self.room:
            while True:
                server = self._pick()
                if server is None:
                    if time.monotonic() - self.troubled_since > self.settings.patience:
                        self.done.put(self._given_up())
                        return
                    await asyncio.sleep(0.1)
                    continue
                try:
                    self.done.put(await self._ask(server, request, request.sampling.max_tokens))
                    self.troubled_since = 0.0
                    server.answered()
                    return
                except RefusedError as error:
                    self.done.put(EngineError(f"{server.url} refuses: {error}"))
                    return
                except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
                    self.trouble = f"{server.url}: {self._hide(str(error)) or type(error).__name__}"
                    self.troubled_since = self.troubled_since or time.monotonic()
                    server.failed()

    def _pick(self) -> Server | None:
        now = time.monotonic()
        ready = [server for server in self.servers if server.rests_until <= now]
        return min(ready, key=lambda server: server.in_flight, default=None)

    async def _ask(self, server: Server, request: Request, most: int) -> Completion:
        """One request for at most so many new tokens."""
        wanted = request.sampling
        body = {
            "model": self.settings.model,
            "messages": list(request.messages) if self.settings.system_role else without_system(list(request.messages)),
            **wanted.options(),
            **self.options,
            "max_tokens": min(most, self.settings.max_model_len - 1),
            "seed": request.seed,
        }
        server.in_flight += 1
        try:
            if self.name == "server":
                self.name = await self._identify(server)
            response = await self.client.post(f"{server.url}/chat/completions", json=body)
        finally:
            server.in_flight -= 1
        if response.status_code in AGAIN:
            raise httpx.HTTPError(f"status {response.status_code}")
        if response.status_code == 400 and "context" in response.text:
            prompt = _PROMPT.search(response.text)
            room = self.settings.max_model_len - int(prompt[1]) if prompt else 0
            if 0 < room < most:
                return await self._ask(server, request, room)
            return Completion(request.key, "", PROMPT_TOO_LONG, self.settings.max_model_len, 0, self.name)
        if response.status_code != 200:
            raise RefusedError(f"status {response.status_code}: {self._hide(' '.join(response.text.split())[:300])}")
        return self._completion(request, response.json())

    def _completion(self, request: Request, answer: dict[str, Any]) -> Completion:
        """A server that parsed the reasoning out of the text returns it separately; it is put back in place."""
        choice, usage = answer["choices"][0], answer["usage"]
        said = choice["message"]
        text, thought = said.get("content") or "", said.get("reasoning_content") or said.get("reasoning")
        if thought:
            text = f"<think>{thought}</think>{text}"
        text = text.encode("utf-8", "replace").decode()  # JSON may hold lone surrogates, tables may not
        finish = choice.get("finish_reason") or "stop"
        return Completion(request.key, text, finish, usage["prompt_tokens"], usage["completion_tokens"], self.name)

    async def _identify(self, server: Server) -> str:
        """The server's software, where it reports it (vLLM does)."""
        try:
            answer = await self.client.get(f"{server.url.removesuffix('/v1')}/version")
            return f"server vllm {answer.json()['version']}"
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
            return "server of unknown version"

    def _given_up(self) -> EngineError:
        urls = ", ".join(server.url for server in self.servers)
        waited = f"no answer from {urls} for {self.settings.patience:g} s"
        return EngineError(f"{waited} (last: {self.trouble}); start the server and run again: nothing that came is lost")

    def _hide(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text
