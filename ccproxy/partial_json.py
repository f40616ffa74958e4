"""Strict JSON for tool arguments: parse an object, or complete the text of one that was cut or is slightly broken.

SDKs parse the joined ``partial_json`` of a tool block strictly, so NaN, comments and trailing commas must not pass.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, NoReturn, Optional

_MEMBER_END = re.compile(r",|(?<=[{\[])")
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which Python reads."""
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def parse_strict(text: str) -> Any:
    """Parse one JSON document.

    Raises:
        ValueError: not strictly JSON, or nested too deeply.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_object(text: str) -> Optional[Dict[str, Any]]:
    """Return the object that ``text`` is, or None."""
    try:
        value = parse_strict(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def closing(text: str) -> Optional[str]:
    """Return the shortest suffix that makes a cut object complete, or None when a suffix cannot."""
    stack: List[str] = []
    in_string = escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif in_string:
            escaped = char == "\\"
            in_string = char != '"'
        elif char == '"':
            in_string = True
        elif char in "{[":
            stack.append("}" if char == "{" else "]")
        elif char in "}]" and (not stack or stack.pop() != char):
            return None
    if escaped:
        return None
    suffix = ('"' if in_string else "") + "".join(reversed(stack))
    return suffix if parse_object(text + suffix) is not None else None


def repair(text: str) -> Dict[str, Any]:
    """Return the object that a model meant by ``text``.

    Empty text and ``null`` are ``{}``; a string that holds an object is parsed twice; a cut object is completed and
    trailing commas are dropped. What stays unreadable comes back as ``{"_raw_arguments": text}``, so that the
    client's own validation of the tool input tells the model what was wrong.
    """
    if not text.strip() or text.strip() == "null":
        return {}
    for candidate in (text, _TRAILING_COMMA.sub(r"\1", text)):
        value = parse_object(candidate)
        if value is not None:
            return value
        suffix = closing(candidate)
        if suffix is not None:
            return parse_object(candidate + suffix) or {}
    try:
        inner = parse_strict(text)
    except ValueError:
        inner = None
    value = parse_object(inner) if isinstance(inner, str) else None
    return value if value is not None else {"_raw_arguments": text}


def complete_cut(text: str) -> Dict[str, Any]:
    """Return what can be read of an object that ``max_tokens`` cut: a cut string is closed, a cut member dropped."""
    cuts = [len(text), *(match.start() for match in reversed(list(_MEMBER_END.finditer(text))))]
    for end in cuts[:64]:
        suffix = closing(text[:end])
        if suffix is not None:
            return parse_object(text[:end] + suffix) or {}
    return {}
