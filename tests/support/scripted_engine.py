"""An engine with scripted answers: for tests of the code around engines, never for results."""

from collections import deque
from collections.abc import Callable

from distillery.generation.engine import Completion, Request


class ScriptedEngine:
    """Answers each request with ``script(request)``, ``batch`` requests per poll, and records its requests."""

    def __init__(self, script: Callable[[Request], str], batch: int = 8):
        self.script, self.batch = script, batch
        self.asked: list[Request] = []
        self.waiting: deque[Request] = deque()

    def submit(self, request: Request) -> None:
        self.asked.append(request)
        self.waiting.append(request)

    def poll(self) -> list[Completion]:
        turn = [self.waiting.popleft() for _ in range(min(self.batch, len(self.waiting)))]
        return [self._complete(request) for request in turn]

    def close(self) -> None: ...

    def _complete(self, request: Request) -> Completion:
        words, limit = self.script(request).split(" "), request.sampling.max_tokens
        said, finish = words[:limit], "length" if len(words) > limit else "stop"
        return Completion(request.key, " ".join(said), finish, len(request.messages), len(said), "scripted")
