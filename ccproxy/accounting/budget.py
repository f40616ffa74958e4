"""Budgets: how much of each is spent. From 80 % on a cheaper model answers, at 100 % none."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional

from ..config.schema import Config
from ..frozen import frozen
from .pricing import plain

NEARLY = Decimal("0.8")
SESSION, TODAY = "session", "today"
SETTING_OF = {SESSION: "SESSION_BUDGET_USD", TODAY: "DAILY_BUDGET_USD"}
_UNTIL = {
    SESSION: "another session begins anew, or a higher SESSION_BUDGET_USD lets this one go on",
    TODAY: "tomorrow begins anew, or a higher DAILY_BUDGET_USD lets today go on",
}


class Spent(NamedTuple):
    """The known costs of a period in USD, and how many requests had a cost that nobody told."""

    amount: Decimal = Decimal(0)
    unknown: int = 0

    def plus(self, cost: Optional[Decimal], is_unknown: bool) -> Spent:
        """Return the sum with one more request."""
        return Spent(self.amount + (cost or 0), self.unknown + is_unknown)


@frozen
class Budget:
    """One budget and what is spent of it."""

    setting: str
    period: str
    limit: Decimal
    spent: Spent

    @property
    def share(self) -> Decimal:
        """The part that is spent; 1 is all of it."""
        return self.spent.amount / self.limit

    @property
    def is_nearly_spent(self) -> bool:
        """Whether a cheaper model is to answer."""
        return self.share >= NEARLY

    @property
    def is_spent(self) -> bool:
        """Whether nothing more may be spent."""
        return self.share >= 1

    @property
    def words(self) -> str:
        """How much is spent, and how sure that is."""
        unsure = f", besides {self.spent.unknown} requests of unknown cost" if self.spent.unknown else ""
        spent, limit = plain(self.spent.amount), plain(self.limit)
        return f"${spent} of {self.setting} ${limit} are spent ({int(self.share * 100)} %){unsure}"

    @property
    def refusal(self) -> str:
        """What is said to a client when it is spent."""
        return f"{self.words}; {_UNTIL[self.period]}"

    def to_dict(self) -> Dict[str, Any]:
        """Return it for the statistics."""
        return {
            "setting": self.setting,
            "period": self.period,
            "limit_usd": plain(self.limit),
            "spent_usd": plain(self.spent.amount),
            "share": round(float(self.share), 4),
            "unknown_cost_requests": self.spent.unknown,
        }


def limits(config: Config) -> Dict[str, Decimal]:
    """Return the amounts that are set, by period."""
    if config.session_budget_usd is None and config.daily_budget_usd is None:
        return {}  # as nearly always, and each request asks twice
    amounts = {SESSION: config.session_budget_usd, TODAY: config.daily_budget_usd}
    return {period: amount for period, amount in amounts.items() if amount is not None}


def budgets(limits: Mapping[str, Decimal], spent: Mapping[str, Spent]) -> List[Budget]:
    """Return the budgets with what is spent of them, for the periods of which that is known."""
    return [
        Budget(SETTING_OF[period], period, limit, spent[period]) for period, limit in limits.items() if period in spent
    ]


def tightest(found: Iterable[Budget]) -> Optional[Budget]:
    """Return the budget of which the least is left."""
    return max(found, key=lambda budget: budget.share, default=None)
