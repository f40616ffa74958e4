"""The two ways to a model, directly and through the proxy: the same client, the same prompt, timed reads."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Callable, Dict, List, Optional, Tuple
from urllib.parse import quote

from ..accounting.pricing import cost_of, prices_of, reported_cost
from ..anthropic import MessagesRequest
from ..config.schema import Config, Model
from ..encoded import Json, to_bytes
from ..errors import ApiError, ProviderError
from ..message import Usage
from ..provider.cancel import Cancel
from ..provider.client import APIS, Call, ProviderClient
from ..provider.repair import find_repair
from ..translate.request import translate_request
from ..translate.response import translate_usage
from .sample import Sample, See, read, see_chunk, see_event, see_response

# Each word is one token in most vocabularies.
_WORDS = ("the", "time", "of", "day", "when", "every", "good", "house", "has", "light", "in", "its", "windows", "and")
_TASK = "Above is filler. Ignore it, and write the numbers from one to forty in words, separated by commas."
_HEADERS = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "ccproxy"}
_SEES: Dict[str, See] = {"chat": see_chunk, "responses": see_response}
_VERSION = {"anthropic-version": "2023-06-01"}


def request_body(model_id: str, prompt_tokens: int, max_tokens: int) -> Json:
    """Return a Messages request whose prompt has about so many tokens; equal arguments give equal requests."""
    words = max(0, prompt_tokens - len(_TASK.split()))
    filler = " ".join(_WORDS[number % len(_WORDS)] for number in range(words))
    message = {"role": "user", "content": f"{filler}\n\n{_TASK}".strip()}
    return {"model": model_id, "max_tokens": max_tokens, "stream": True, "messages": [message]}


@dataclass
class Way:
    """One way to a model: whom to ask, with what, and how the answer is read."""

    client: ProviderClient
    config: Config
    model: Model
    path: str
    headers: Dict[str, str]
    body: Json
    see: See
    read_usage: Callable[[Json], Usage]
    read_cost: Callable[[Json, Usage], Optional[Decimal]]
    answered_by: str = ""
    """The model that the proxy must say it asked."""
    timeout: float = 120.0
    """Seconds one request may take, and may be silent."""

    def ask(self) -> Sample:
        """Send the request and read the answer; a failure is a sample that says why."""
        try:
            return self._ask()
        except ApiError as error:
            return Sample(error.message)

    def warm_up(self) -> Sample:
        """Ask outside the measurement; when the provider refuses a field, mend the request as the proxy does."""
        try:
            return self._ask()
        except ProviderError as error:
            repair = None if self.model.direct else find_repair(error.provider_status, error.detail, self.model.api)
            if repair is None or error.is_overflow:
                return Sample(error.message)
            self.body = repair(self.body)
            return self.ask()
        except ApiError as error:
            return Sample(error.message)

    def _ask(self) -> Sample:
        call = Call(self.model, self.path, to_bytes(self.body), self.headers)
        config = replace(self.config, provider_read_timeout=min(self.timeout, self.config.provider_read_timeout))
        reads: List[Tuple[float, bytes]] = []
        started = time.perf_counter()
        response = self.client.send(call, config, Cancel())
        try:
            for data in response.reads():
                reads.append((time.perf_counter() - started, data))
                if reads[-1][0] > self.timeout:
                    return Sample(f"no end within {self.timeout:g} s")
            response.is_done = True
        finally:
            response.close()
        asked = response.headers.get("x-ccproxy-model", "")
        if self.answered_by and asked != self.answered_by:
            return Sample(f"answered by {asked}" if asked else "answered by something that is no ccproxy")
        sample, counts = read(reads, self.see)
        if sample.error or not counts:
            return sample
        usage = self.read_usage(counts)
        return replace(sample, usage=usage, cost=self.read_cost(counts, usage))


def direct_way(client: ProviderClient, config: Config, model: Model, body: Json) -> Way:
    """Return the way to the provider itself, with the request that the proxy would send it."""
    prices = prices_of(model, config)
    if model.direct:
        path = model.messages_path("/v1/messages")
        sent, headers = {**body, "model": model.name}, {**_HEADERS, **_VERSION}
        return Way(
            client,
            config,
            model,
            path,
            headers,
            sent,
            see_event,
            Usage.from_dict,
            lambda _, usage: cost_of(usage, prices),
        )
    request = MessagesRequest.from_dict(body)
    limit = config.output_limit(model)
    sent = translate_request(request, model, output_limit=limit, stream=model.can_stream).request.to_dict()
    dialect = model.dialect

    def cost(counts: Json, usage: Usage) -> Optional[Decimal]:
        told = reported_cost(counts, dialect.name)
        return told if told is not None else cost_of(usage, prices)

    def usage_of(counts: Json) -> Usage:
        return translate_usage(counts, dialect)

    return Way(client, config, model, APIS[model.api].path, _HEADERS, sent, _SEES[model.api], usage_of, cost)


def proxied_way(client: ProviderClient, config: Config, model: Model, body: Json, url: str) -> Way:
    """Return the way through the proxy at ``url``, past its router: no other model may answer."""
    proxy = Model("ccproxy", url, direct=True, needs_key=False)
    prices = prices_of(model, config)
    token = {"x-api-key": config.ccproxy_auth_token} if config.ccproxy_auth_token else {}
    return Way(
        client,
        config,
        proxy,
        f"/v1/messages/test_conversion?model={quote(model.model_id, safe='')}",
        {**_HEADERS, **_VERSION, **token},
        body,
        see_event,
        Usage.from_dict,
        lambda _, usage: cost_of(usage, prices),
        answered_by=model.model_id,
    )
