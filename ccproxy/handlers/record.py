"""``Record``: what is logged, counted and put into the ledger about one request, once, when its answer ends."""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, List, Optional

from ..accounting.ledgerfile import Row, bounded_name
from ..accounting.pricing import claude_cost, cost_of, plain, prices_of
from ..anthropic import MessagesRequest
from ..config.schema import Model
from ..counting.calibration import Sample
from ..errors import ApiError, ClientGone
from ..message import BlockStart, Event, MessageDelta, TextDelta, Usage
from ..routing import Decision
from ..web import Request
from . import topics
from .context import Context

log = logging.getLogger(__name__)

ENDED, FAILED, CANCELLED = "ended", "failed", "cancelled"


@dataclass
class Record:
    """One request on its way to an answer; until something else happened, the client left."""

    context: Context
    decision: Decision
    started: float
    requested: str = ""
    session: str = ""
    asked: topics.Asked = topics.NOTHING
    model: Optional[Model] = None
    attempts: int = 0
    got: topics.Got = field(default_factory=topics.Got)
    unanswered: List[str] = field(default_factory=list)
    """The models that gave no answer."""
    sample: Optional[Sample] = None
    """What the provider's count of the prompt may teach, without that count; the prompt itself is let go meanwhile."""
    usage: Optional[Usage] = None
    is_counted: bool = False
    """Whether the counts of the prompt are the provider's."""
    reported_cost: Optional[Decimal] = None
    """What the provider said it costs."""
    price_factor: Optional[Decimal] = Decimal(1)
    """How many times their prices the tokens cost; None when unknown."""
    cost: Optional[Decimal] = None
    """What the answer cost, once it is written down."""
    first_content: Optional[float] = None
    outcome: str = CANCELLED
    status: int = ClientGone.status
    detail: str = CANCELLED
    """The stop reason, or the failure in words: for the log alone."""
    is_written: bool = False

    def see(self, events: List[Event]) -> None:
        """Take down what the events tell."""
        for event in events:
            if type(event) is TextDelta:  # nearly all are
                continue
            if isinstance(event, BlockStart):
                self.saw_content()
                self.got.see(event.block)
            elif isinstance(event, MessageDelta):
                self.usage = event.usage
                self.ended(event.stop_reason)

    def saw_content(self) -> None:
        """Take the time of the first content."""
        if self.first_content is None:
            self.first_content = self.context.now()

    def ended(self, stop_reason: str) -> None:
        """The answer came to its regular end."""
        self.outcome, self.status, self.detail = ENDED, 200, stop_reason

    def failed(self, error: ApiError, where: str = "") -> None:
        """The answer failed, or the client left."""
        if isinstance(error, ClientGone):
            self.outcome = self.detail = CANCELLED
        else:
            self.outcome, self.detail = FAILED, f"failed{where} with {error.status}"
        self.status = error.status

    def _cost(self) -> Optional[Decimal]:
        """Return what the answer cost, if it ended; what a provider takes for a part of one is not known."""
        if self.outcome != ENDED or self.usage is None or self.model is None:
            return None
        if self.reported_cost is not None:
            return self.reported_cost
        return cost_of(self.usage, prices_of(self.model, self.context.config), self.price_factor)

    @property
    def model_id(self) -> str:
        """The model that answered or failed last, for the log."""
        return bounded_name(self.model.model_id) if self.model else "-"

    def end(self) -> None:
        """Write it all down; the request is watched no more."""
        self.context.running.stop()
        if self.is_written:
            return
        self.is_written = True
        self.cost = self._cost()
        row = self._row()
        first = "-" if row.first_content is None else f"{row.first_content:.3f}s"
        log.info(
            "%s %s (%s) -> %s in=%d cached=%d out=%d cost=%s first=%s total=%.3fs %s",
            row.request_id,
            row.rule,
            self.decision.reason,
            self.model_id,
            row.input_tokens,
            row.cache_read_tokens,
            row.output_tokens,
            "-" if row.cost is None else f"${plain(row.cost)}",
            first,
            row.duration,
            self.detail,
        )
        topics.write(row, self.asked, self.got, first=first, detail=self.detail)
        self.context.metrics.add(row)
        self.context.spending.add(row)
        self.context.estimator.learned.add(row)
        if self.context.ledger is not None:
            self.context.ledger.add(row)

    def _row(self) -> Row:
        usage = self.usage or Usage()
        sample = self._sample(usage)
        is_known = self.outcome == ENDED and self.usage is not None
        return Row(
            time=time.time(),
            session=self.session,
            request_id=self.context.request_id,
            requested_model=bounded_name(self.requested),
            model=self.model_id if self.model else "",
            provider=self.model.provider if self.model else "",
            rule=self.decision.rule,
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read_input_tokens,
            cache_write_tokens=usage.cache_creation_input_tokens,
            output_tokens=usage.output_tokens,
            thinking_tokens=usage.thinking_tokens,
            cost=self.cost,
            claude_cost=claude_cost(self.requested, usage) if is_known else None,
            outcome=self.outcome,
            status=self.status,
            first_content=None if self.first_content is None else self.first_content - self.started,
            duration=self.context.now() - self.started,
            attempts=self.attempts,
            reason=bounded_name(self.decision.reason),
            estimate=sample.estimate if sample else None,
            has_tools=bool(sample and sample.has_tools),
            unanswered=",".join(
                bounded_name(name) for name in self.unanswered if not self.model or name != self.model.model_id
            ),
        )

    def _sample(self, usage: Usage) -> Optional[Sample]:
        if self.sample is None or not self.is_counted or self.outcome != ENDED:
            return None
        sample = self.sample._replace(actual=usage.prompt_tokens)
        return sample if sample.is_plausible else None


def session_of(request: Request, messages: MessagesRequest) -> str:
    """Return the id of the client's session: Claude Code's header, else the session part of ``metadata.user_id``.

    That is ``user_..._account_..._session_ID``, or in newer versions a JSON object as text.
    """
    found: Any = request.headers.get("x-claude-code-session-id")
    user = messages.metadata.get("user_id")
    if not found and isinstance(user, str):
        found = _session_in_json(user) if user.startswith("{") else user.partition("_session_")[2]
    return found if isinstance(found, str) and re.fullmatch(r"[\w.-]{1,100}", found, re.ASCII) else ""


def _session_in_json(text: str) -> Any:
    try:
        return json.loads(text).get("session_id")
    except (ValueError, RecursionError):
        return None
