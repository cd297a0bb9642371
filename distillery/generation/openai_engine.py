"""A model behind OpenAI-compatible servers: vLLM on other machines, or any service that speaks the same.

A request goes to the server with the fewest in flight. What befalls one request stays its own: it is asked again after a
moment, and where servers answer others but not it, its completion says that it was refused, and why. A server that is down or
overloaded rests, for as long as it asks; the engine fails only when none has answered for ``patience`` seconds, when one
refuses what holds for all requests (a wrong key), or when more requests are refused than ``max_refused`` allows.

Servers may come and go: for a url ``file:FOLDER``, those in the folder's files at the time (scripts/slurm/serve.sbatch).
"""

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import aiohttp

from distillery.core.chat import Messages, without_system
from distillery.core.chat_template import ChatTemplate
from distillery.core.errors import EngineError
from distillery.core.model_locks import Lock
from distillery.generation.config import ServerSettings
from distillery.generation.engine import PROMPT_TOO_LONG, REFUSED, Completion, Request
from distillery.generation.server_answers import (
    BusyError,
    FailedError,
    OverflowedError,
    RefusedError,
    RefusesAllError,
    completion_of,
)

FIRST_PAUSE, LONGEST_PAUSE, CONNECT, LOOK_AGAIN = 0.5, 30.0, 10.0, 2.0
TRIES = 5
"""How often a request may fail on servers that answer others."""
FEW_REFUSED = 20
"""Refused requests that never end a run, however large their share."""


class Server:
    """One url, its requests in flight, and until when it rests."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.in_flight = self.answers = 0
        self.pause = FIRST_PAUSE
        self.rests_until = 0.0
        self.name: str | None = None
        self.naming = asyncio.Lock()

    def rest(self, seconds: float | None) -> None:
        """Rests for so long, or else for twice as long as the last time; one rest for all requests that fail together."""
        now = time.monotonic()
        if seconds is not None:
            self.rests_until = max(self.rests_until, now + seconds)
        elif now >= self.rests_until:
            self.rests_until = now + self.pause * random.uniform(0.7, 1.3)
            self.pause = min(2 * self.pause, LONGEST_PAUSE)

    def answered(self) -> None:
        self.pause = FIRST_PAUSE
        self.answers += 1

    def state(self) -> dict[str, Any]:
        """What `make progress` shows of it; ``rests`` in seconds from now."""
        rests = max(0.0, self.rests_until - time.monotonic())
        return {"url": self.url, "answers": self.answers, "in_flight": self.in_flight, "rests": round(rests, 1)}


def listed(urls: list[str]) -> list[str]:
    """The servers' addresses now."""
    found: list[str] = []
    for url in urls:
        if url.startswith("file:"):
            for path in sorted(Path(url.removeprefix("file:")).glob("*")):
                with suppress(OSError, UnicodeDecodeError):  # a server that has just ended
                    listed_there = "" if path.suffix == ".tmp" or path.name.startswith(".") else path.read_text().strip()
                    found += [listed_there] if listed_there else []
        else:
            found.append(url)
    return found


def body_options(settings: ServerSettings, lock: Lock | None) -> dict[str, Any]:
    """What each request's body says beside messages and sampling, as vLLM and SGLang name it."""
    options: dict[str, Any] = {}
    if lock and lock.template_arguments:
        options["chat_template_kwargs"] = lock.template_arguments
    if lock and lock.template is not None:
        options["chat_template"] = lock.template_text
    return options | settings.extra_body


def counter_of(lock: Lock | None) -> Callable[[Messages], int] | None:
    """Counts a prompt's tokens by the model's own tokenizer; None where that is not on this machine."""
    from transformers import AutoTokenizer

    if lock is None:
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(lock.id, revision=lock.hub_revision, local_files_only=True)
    except (OSError, ValueError):
        return None
    template = ChatTemplate(tokenizer, lock.template_text, lock.template_arguments)
    return lambda messages: len(tokenizer(template.prompt(messages), add_special_tokens=False).input_ids)


class ServerEngine:
    """The `Engine` over servers. Its requests run in an event loop on a thread of its own.

    ``lock`` says which chat template the server shall use and with what; None: its own. A server returns text without special
    tokens unless it has a reasoning parser, or ``extra_body`` asks for them (``skip_special_tokens: false`` of vLLM).
    """

    def __init__(self, settings: ServerSettings, lock: Lock | None = None):
        self.settings, self.lock = settings, lock
        self.options = body_options(settings, lock)
        self.key = os.environ.get(settings.api_key, "") if settings.api_key else ""
        if not settings.urls:
            raise EngineError("the engine has no urls; give it at least one")
        if settings.api_key and not self.key:
            raise EngineError(f"the environment variable {settings.api_key} is empty; it must hold the servers' API key")
        self.servers = {url: Server(url) for url in listed(settings.urls)}
        self.looked = time.monotonic()
        self.done: SimpleQueue[Completion | EngineError] = SimpleQueue()
        self.dead: EngineError | None = None
        self.answers = self.settled = self.refused = 0
        self.trouble, self.troubled_since = "no answer", 0.0
        self.counter: Callable[[Messages], int] | None = None
        self.room = asyncio.Semaphore(settings.max_num_seqs)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True, name="servers")
        self.thread.start()
        self.session = asyncio.run_coroutine_threadsafe(self._open(), self.loop).result()

    def states(self) -> list[dict[str, Any]]:
        """The state of every server."""
        return [server.state() for server in list(self.servers.values())]

    async def _open(self) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = aiohttp.ClientTimeout(total=self.settings.timeout, sock_connect=CONNECT)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout, headers=headers, trust_env=True)

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
            await self.session.close()

        asyncio.run_coroutine_threadsafe(stop(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def _settle(self, request: Request) -> None:
        """Every request ends as a completion or as an error, a fault of our own included: no caller waits for ever."""
        async with self.room:
            try:
                self.done.put(await self._answered(request))
            except Exception as error:
                self.done.put(EngineError(f"unexpected {type(error).__name__} while asking a server: {error}"))

    async def _answered(self, request: Request) -> Completion | EngineError:
        """Asks until there is an answer, a refusal, or no hope."""
        most = min(request.sampling.max_tokens, self.settings.max_model_len - 1)
        tries, others = 0, self.answers
        while not self._out_of_patience():
            server = self._pick()
            if server is None:
                await asyncio.sleep(self._until_one_is_ready())
                continue
            try:
                completion = await self._ask(server, request, most)
            except OverflowedError as words:
                most = await self._less(request, most)
                if not most:
                    return self._settled(Completion(request.key, str(words), PROMPT_TOO_LONG, 0, 0, str(server.name)), server)
            except RefusedError as words:
                return self._refusal(request, server, str(words))
            except RefusesAllError as words:
                return EngineError(f"{server.url} refuses: {self._hide(str(words))}")
            except BusyError as words:
                self._troubled(server.url, str(words))
                server.rest(words.seconds)
                if words.seconds is not None:
                    self.troubled_since = 0.0  # it is there, and says when
            except FailedError as words:
                self._troubled(server.url, str(words))
                tries += 1
                if tries >= TRIES and self.answers > others:
                    return self._refusal(request, server, f"{words}, {tries} times")
                await asyncio.sleep(min(FIRST_PAUSE * 2**tries, LONGEST_PAUSE) * random.uniform(0.2, 0.5))
            else:
                self.answers += 1
                return self._settled(completion, server)
        return self._given_up()

    async def _ask(self, server: Server, request: Request, most: int) -> Completion:
        """One request for at most so many new tokens. Raises the errors of `server_answers`."""
        messages = list(request.messages)
        body = {
            "model": self.settings.model,
            "messages": messages if self.settings.system_role else without_system(messages),
            **request.sampling.options(),
            **self.options,
            "max_tokens": most,
            "seed": request.seed,
        }
        server.in_flight += 1
        try:
            name = await self._name_of(server)
            async with self.session.post(f"{server.url}/chat/completions", json=body) as response:
                text = (await response.read()).decode("utf-8", "replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BusyError(str(error) or type(error).__name__) from None
        finally:
            server.in_flight -= 1
        return completion_of(request, response.status, text, response.headers.get("Retry-After"), name)

    async def _name_of(self, server: Server) -> str:
        """The server's software, where it reports it (vLLM does). Asked once; requests wait for the first to hear."""
        async with server.naming:
            if server.name is None:
                async with self.session.get(f"{server.url.removesuffix('/v1')}/version") as response:
                    try:
                        server.name = f"server vllm {(await response.json(content_type=None))['version']}"
                    except (ValueError, KeyError, TypeError):
                        server.name = "server of unknown version"
        return server.name

    async def _less(self, request: Request, most: int) -> int:
        """How many tokens to ask for after an overflow: what the prompt leaves, where it can be counted, else half as many."""
        if self.counter is None and self.lock is not None:
            self.counter = await asyncio.to_thread(counter_of, self.lock) or (lambda messages: 0)
        room = self.settings.max_model_len - (self.counter(list(request.messages)) if self.counter else 0)
        return max(room, 0) if room < most else most // 2

    def _pick(self) -> Server | None:
        now = time.monotonic()
        if now - self.looked > LOOK_AGAIN:
            self.looked, addresses = now, listed(self.settings.urls)
            self.servers = {url: self.servers.get(url) or Server(url) for url in addresses}
        if not self.servers:
            self._troubled(", ".join(self.settings.urls), "no server is listed there")
        ready = [server for server in self.servers.values() if server.rests_until <= now]
        return min(ready, key=lambda server: server.in_flight, default=None)

    def _until_one_is_ready(self) -> float:
        soonest = min((server.rests_until for server in self.servers.values()), default=0.0) - time.monotonic()
        return min(max(soonest, 0.02), 1.0) * random.uniform(1.0, 1.2)

    def _troubled(self, where: str, what: str) -> None:
        self.trouble = f"{where}: {self._hide(what)}"
        self.troubled_since = self.troubled_since or time.monotonic()

    def _out_of_patience(self) -> bool:
        return self.troubled_since > 0 and time.monotonic() - self.troubled_since > self.settings.patience

    def _settled(self, completion: Completion, server: Server) -> Completion:
        self.settled += 1
        self.troubled_since = 0.0
        server.answered()
        return completion

    def _refusal(self, request: Request, server: Server, words: str) -> Completion | EngineError:
        """A refused request's completion; an error once too many are refused."""
        words = self._hide(words)
        self.refused += 1
        found = self._settled(Completion(request.key, words, REFUSED, 0, 0, str(server.name)), server)
        if self.refused <= max(FEW_REFUSED, self.settings.max_refused * self.settled):
            return found
        share = f"{self.refused} of {self.settled} requests were refused, more than max_refused allows"
        return EngineError(f"{server.url}: {share}; the last: {words}")

    def _given_up(self) -> EngineError:
        urls = ", ".join(self.servers or self.settings.urls)
        waited = f"no answer from {urls} for {self.settings.patience:g} s"
        return EngineError(f"{waited} (last: {self.trouble}); start the server and run again: nothing that came is lost")

    def _hide(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text
