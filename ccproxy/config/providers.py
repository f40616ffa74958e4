"""The built-in providers: what ``<provider>/<model name>`` means without a line in models.yaml."""

from __future__ import annotations

from typing import Dict

from ..frozen import frozen

DEMO_BASE = "demo:"
"""The address of the scripted provider inside the package; it has a port only once it runs."""


@frozen
class Provider:
    """One row. A provider with ``is_local`` takes its address from ``<NAME>_API_BASE`` and needs no key."""

    name: str
    api_base: str
    api_key_name: str
    dialect: str
    is_local: bool = False
    is_direct: bool = False


PROVIDERS: Dict[str, Provider] = {
    row.name: row
    for row in (
        Provider("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "openai"),
        Provider("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", "gemini"),
        Provider("anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY", "generic", is_direct=True),
        Provider("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "deepseek"),
        Provider("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "openrouter"),
        Provider("doubao", "https://ark.cn-beijing.volces.com/api/v3", "ARK_API_KEY", "doubao"),
        Provider("moonshot", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", "moonshot"),
        Provider("zai", "https://api.z.ai/api/paas/v4", "ZAI_API_KEY", "zai"),
        Provider("qwen", "https://dashscope.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY", "qwen"),
        Provider("xai", "https://api.x.ai/v1", "XAI_API_KEY", "xai"),
        Provider("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", "groq"),
        Provider("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY", "mistral"),
        Provider("ollama", "http://127.0.0.1:11434/v1", "OLLAMA_API_KEY", "ollama", is_local=True),
        Provider("lmstudio", "http://127.0.0.1:1234/v1", "LMSTUDIO_API_KEY", "lmstudio", is_local=True),
        Provider("vllm", "http://127.0.0.1:8000/v1", "VLLM_API_KEY", "vllm", is_local=True),
        Provider("llamacpp", "http://127.0.0.1:8080/v1", "LLAMACPP_API_KEY", "llamacpp", is_local=True),
        Provider("demo", DEMO_BASE, "DEMO_API_KEY", "generic", is_local=True),
    )
}
