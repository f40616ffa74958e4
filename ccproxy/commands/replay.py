"""``ccproxy replay``: send a captured request again, and show where the answer differs."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
from contextlib import closing
from dataclasses import replace
from typing import List, Optional

from ..accounting.ledger import Ledger
from ..app import App
from ..capture import MESSAGES, RESPONSES, Capture, answer_lines, as_messages, read_capture, translated
from ..config.load import state_folder
from ..config.schema import Config, Model
from ..encoded import Json, dump, to_bytes
from ..errors import ApiError, ConfigError
from ..in_process import ask
from ..provider.cancel import Cancel
from ..provider.client import APIS, Call, ProviderClient
from ..stub import StubProvider
from ..translate.reply import ReplyContext
from .options import add_configuration, find_model, load, read_file
from .terminal import DIM, GREEN, RED, Look, printable

EXAMPLES = (
    "ccproxy replay recording.json",
    "ccproxy replay ~/.local/state/ccproxy/bodies.log --id req_5JJjwwEJTNLl",
    "ccproxy replay recording.json --model deepseek/deepseek-chat",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("file", help="a recording, or the bodies.log that LOG_BODIES=1 writes; - is stdin")
    parser.add_argument("--id", metavar="REQUEST", help="which request of a bodies.log; the last one unless told")
    parser.add_argument("--model", help="ask this model; without it, the routers choose")
    add_configuration(parser)


def run(options: argparse.Namespace) -> int:
    """Print the difference; 0 when there is none, 1 when there is one, as ``diff`` does."""
    capture = read_capture(read_file(options.file).decode("utf-8", "replace"), options.file, options.id)
    config = load(options).config
    model = find_model(options.model, config, "--model:") if options.model else None
    logging.getLogger("ccproxy").addHandler(logging.NullHandler())  # a failure is in the answer
    if capture.api == MESSAGES:
        before, after = capture.answer, _ask(capture.request, model, config)
    elif model is None:
        raise ConfigError(f"{options.file}: an exchange of {capture.api}: --model must name the model to ask")
    else:
        reply = ReplyContext("", "", dialect=model.dialect, provider=model.provider, model_name=model.name)
        before, after = as_messages(capture, reply), _ask_provider(capture, model, reply, config)
    print("\n".join(_difference(answer_lines(before), answer_lines(after), Look.of_output())))
    return int(answer_lines(before) != answer_lines(after))


def _ask(request: Json, model: Optional[Model], config: Config) -> str:
    """Send a request of the Messages API through the proxy; the routers choose where no model is named."""
    app = App(config, Ledger(state_folder(config, os.environ)))
    try:
        if model is None:
            answered = ask(app, "/v1/messages", request)
        else:
            answered = ask(app, "/v1/messages/test_conversion", request, {"model": model.model_id})
    finally:
        app.close()
    return answered.body.decode("utf-8", "replace")


def _ask_provider(capture: Capture, model: Model, reply: ReplyContext, config: Config) -> str:
    """Send a request to a provider as it was, but for the model's name; return its answer translated."""
    model = replace(model, api_name="responses" if capture.api == RESPONSES else "chat")
    body = to_bytes({**capture.request, "model": model.name})
    headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "ccproxy"}
    with StubProvider() as demo, closing(ProviderClient(lambda: demo.url)) as client:
        try:
            response = client.send(Call(model, APIS[model.api].path, body, headers), config, Cancel())
        except ApiError as error:
            return dump(error.to_dict(""))
        try:
            chunks = [chunk for batch in response.chunks() for chunk in batch]
            return translated(chunks, reply, is_done=response.is_done)
        except ApiError as error:
            return dump(error.to_dict(""))
        finally:
            response.close()


def _difference(before: List[str], after: List[str], look: Look) -> List[str]:
    """Return the lines of both answers: what is in one alone is marked, and coloured."""
    if before == after:
        return ["the same answer, but for ids:", *(f"  {printable(line)}" for line in before)]
    styles = {"-": RED, "+": GREEN, " ": ""}
    lines = [line for line in difflib.ndiff(before, after) if line[0] in styles]
    return [look.colored(DIM, "- captured, + now"), *(look.colored(styles[line[0]], printable(line)) for line in lines)]
