"""What distilling a teacher costs: a limit that ends the run cleanly, and a forecast from the first queries."""

import math
from typing import NamedTuple

import numpy as np

from distillery.core.errors import ConfigError, DataError
from distillery.generation.cached_engine import LedgerEngine
from distillery.verification.distiller import Budget, Task

FORECAST_FROM = 256
"""The queries, in the order of their submission, that a forecast is made from: whichever end first would be the short ones."""


class Cost(NamedTuple):
    """Tokens generated, GPU-hours, and money; NaN without a price."""

    tokens: float
    gpu_hours: float
    money: float

    def __str__(self) -> str:
        money = "" if math.isnan(self.money) else f", {self.money:.4g} at price.device_hour"
        return f"{self.tokens:.3g} tokens, {self.gpu_hours:.3g} GPU-hours{money}"


class Spending:
    """The costs of one teacher's ledger as it grows; ``devices`` are those of its engine, ``price`` one's per hour."""

    def __init__(self, engine: LedgerEngine, budget: Budget | None, devices: int, price: float | None):
        if budget and budget.money is not None and price is None:
            raise ConfigError("params.yaml: distill.budget.money: needs price.device_hour")
        self.engine, self.budget, self.devices, self.price = engine, budget, devices, price

    def cost(self, tokens: float, seconds: float) -> Cost:
        hours = seconds * self.devices / 3600
        return Cost(tokens, hours, math.nan if self.price is None else hours * self.price)

    def so_far(self) -> Cost:
        """Of all that is in the ledger, other runs' included."""
        return self.cost(self.engine.ledger.tokens, self.engine.ledger.seconds)

    def check(self) -> None:
        """Raises DataError once the budget is spent and more is being generated; what was generated is kept."""
        if self.budget is None or not self.engine.attempts:
            return
        spent = self.so_far()
        for name in ("gpu_hours", "tokens", "money"):
            limit = getattr(self.budget, name)
            if limit is not None and getattr(spent, name) >= limit:
                raise DataError(
                    f"params.yaml: distill.budget.{name}: {limit:g} is spent ({spent}); what was generated is in the "
                    "ledger: raise it and run again to continue"
                )

    def forecast(self, tasks: list[Task], left: int) -> str:
        """What ``left`` more queries cost if none is in the ledger, from queries that are settled; with a 95 % interval."""
        per_query = np.array([sum(trace.completion.completion_tokens for trace in task.traces) for task in tasks], float)
        mean, error = per_query.mean(), 1.96 * per_query.std(ddof=1) / math.sqrt(len(per_query))
        seconds_per_token = self.engine.seconds_spent / self.engine.tokens
        low, expected, high = (
            self.cost(each * left, each * left * seconds_per_token) for each in (max(mean - error, 0.0), mean, mean + error)
        )
        share = f"tokens {low.tokens:.3g} to {high.tokens:.3g}, GPU-hours {low.gpu_hours:.3g} to {high.gpu_hours:.3g}"
        return f"{left} queries are left: {expected} if none of them is in the ledger (95 %: {share})"
