"""Readers of values from files and the environment; each says what it expected instead of what it was given."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Callable, Tuple, TypeVar

MAX_WORKERS = 256
MAX_SECONDS = 1_000_000
SENDABLE = "printable ASCII characters, which a header can carry"

_T = TypeVar("_T")
Reader = Callable[[Any], _T]
"""Makes a value of what stands in a file or the environment; a ``ValueError`` says what was expected."""


def fitting(read: Reader[_T], fits: Callable[[_T], object], words: str) -> Reader[_T]:
    """Return a reader of the values of another one that fit; ``words`` say which do."""

    def read_fitting(value: Any) -> _T:
        found = read(value)
        if not fits(found):
            raise ValueError(words)
        return found

    return read_fitting


def whole_number(value: Any) -> int:
    """Read ``8192``, ``"8192"``, ``8k`` or ``1.5m``; k is 1000 and m a million."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)([km]?)", str(value).strip().lower().replace("_", ""))
    number = Decimal(match[1]) * {"": 1, "k": 1000, "m": 1_000_000}[match[2]] if match else None
    if isinstance(value, bool) or number is None or number != int(number):
        raise ValueError("a whole number such as 8192 or 128k (k = 1000)")
    return int(number)


def money(value: Any) -> Decimal:
    """Read an amount of USD, at least 0; ``1e-06`` and ``"0.5"`` are numbers too."""
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        number = Decimal("NaN")
    if isinstance(value, bool) or not number.is_finite() or number < 0:
        raise ValueError("a number of at least 0")
    return number


def truth(value: Any) -> bool:
    """Read a boolean; the words are those of YAML and of shells."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("true or false")


def text(value: Any) -> str:
    """Read text; a bare YAML number is text too."""
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ValueError("text")
    return str(value).strip()


def host_name(value: Any) -> str:
    """Read a name or address of this machine; an IPv6 address may stand in brackets."""
    name = re.sub(r"^\[(.*)\]$", r"\1", text(value))
    try:
        name.encode("idna")  # as a look-up does
    except UnicodeError:
        raise ValueError("a host name or an address") from None
    return name


def is_sendable(word: str) -> bool:
    """Whether a header can carry a key or token; a word processor's quotes around it, say, it cannot."""
    return word.isascii() and word.isprintable()


def one_of(*words: str) -> Reader[str]:
    """Return a reader of one of ``words``, in any case."""

    def read(value: Any) -> str:
        found = next((word for word in words if word.lower() == str(value).strip().lower()), None)
        if found is None:
            raise ValueError("one of " + ", ".join(words))
        return found

    return read


def references(value: Any) -> Tuple[str, ...]:
    """Read model references: a comma-separated list in order of preference."""
    return tuple(part.strip() for part in text(value).split(",") if part.strip())


positive_number = fitting(whole_number, lambda number: number > 0, "a whole number above 0")
port_number = fitting(whole_number, lambda number: number <= 65535, "a port from 0 to 65535")
worker_count = fitting(
    whole_number, lambda number: 1 <= number <= MAX_WORKERS, f"a number of processes from 1 to {MAX_WORKERS}"
)
# The system counts waits in 31 bits of milliseconds.
seconds = fitting(
    lambda value: float(money(value)),
    lambda number: 0 < number <= MAX_SECONDS,
    f"a number of seconds above 0 and at most {MAX_SECONDS}",
)
budget = fitting(money, bool, "an amount of USD above 0")
# What is beyond them JSON's readers do not take.
real_number = fitting(lambda value: float(money(value)), math.isfinite, "a finite number")
token = fitting(text, is_sendable, SENDABLE)
