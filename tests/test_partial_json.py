"""JSON of tool arguments: strict, completed when it was cut, repaired when it is slightly broken."""

from __future__ import annotations

import json
from typing import Any, Dict, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccproxy.partial_json import closing, complete_cut, parse_object, parse_strict, repair

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=4)


@pytest.mark.parametrize(
    "text",
    ['{"a": NaN}', '{"a": Infinity}', "{'a': 1}", '{"a": 1,}', "// c\n{}", "", "{", "[" * 100_000],
    ids=lambda text: text[:9],
)
def test_only_strict_json_is_parsed(text: str) -> None:
    """SDKs parse a tool's input strictly; what they would refuse is refused here."""
    with pytest.raises(ValueError):
        parse_strict(text)
    assert parse_object(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("{}", {}), (' {"a": [1]} ', {"a": [1]}), ("[]", None), ('"x"', None), ("null", None), ("1", None)],
)
def test_an_object_is_told_from_other_json(text: str, value: Optional[Dict[str, Any]]) -> None:
    """A tool's input is an object."""
    assert parse_object(text) == value


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("{}", ""),
        ('{"a": "xy', '"}'),
        ('{"a": [1, {"b": 2', "}]}"),
        ('{"a": "}"', "}"),
        ('{"a": "\\"', '"}'),
        ('{"a": "x\\', None),  # half an escape
        ('{"a": "\\u00', None),
        ('{"a":', None),
        ('{"a": 1,', None),
        ('{"a": 1]', None),
        ("}", None),
        ("", None),
        ('{"a": NaN', None),
    ],
)
def test_the_suffix_that_completes_a_cut_object(text: str, suffix: Optional[str]) -> None:
    """What was sent cannot be taken back: only a suffix may make it whole."""
    assert closing(text) == suffix


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("  \n", {}),
        ("null", {}),
        ("{}", {}),
        ('{"a": 1}', {"a": 1}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('{"a": 1', {"a": 1}),
        ('{"a": [1, 2', {"a": [1, 2]}),
        ('{"a": 1,}', {"a": 1}),
        ('{"a": [1, 2,],}', {"a": [1, 2]}),
        ('{"a": ",}"}', {"a": ",}"}),
        ("[1]", {"_raw_arguments": "[1]"}),
        ('"text"', {"_raw_arguments": '"text"'}),
        ("5", {"_raw_arguments": "5"}),
        ("ls -la", {"_raw_arguments": "ls -la"}),
        ('{"a": NaN}', {"_raw_arguments": '{"a": NaN}'}),
        ("{'a': 1}", {"_raw_arguments": "{'a': 1}"}),
    ],
)
def test_arguments_are_repaired(text: str, value: Dict[str, Any]) -> None:
    """Empty and null are no arguments; what stays unreadable is kept, so that the tool's own check tells the model."""
    assert repair(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "xy', {"a": "xy"}),
        ('{"a": 1, "b": tr', {"a": 1}),
        ('{"a": 1, "b', {"a": 1}),
        ('{"a": 1, "b":', {"a": 1}),
        ('{"a": {"b": [1, {"c":', {"a": {"b": [1, {}]}}),
        ("{", {}),
        ('{"a', {}),
        ("", {}),
    ],
)
def test_a_cut_object_is_read_as_far_as_it_goes(text: str, value: Dict[str, Any]) -> None:
    """A string that ``max_tokens`` cut is closed, a member that was cut is dropped."""
    assert complete_cut(text) == value


@given(OBJECTS, st.booleans())
def test_every_cut_of_every_object_is_read(value: Dict[str, Any], is_ascii: bool) -> None:
    """Wherever the text ends, what is read is an object, and the whole text is the whole object."""
    text = json.dumps(value, ensure_ascii=is_ascii)
    for end in range(len(text)):
        assert set(complete_cut(text[:end])) <= set(value) | {key[:n] for key in value for n in range(len(key))}
        suffix = closing(text[:end])
        assert suffix is None or isinstance(json.loads(text[:end] + suffix), dict)
    assert complete_cut(text) == repair(text) == value


@given(st.text(max_size=40))
def test_any_text_gives_an_object(text: str) -> None:
    """Nothing a model writes as arguments raises."""
    assert isinstance(repair(text), dict)
    assert isinstance(complete_cut(text), dict)
