"""``frozen``: what its classes promise at run time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict

from ccproxy.frozen import frozen

NAMESPACE = {"__annotations__": {"name": "str"}, "__doc__": "A name."}


@frozen
class One:
    """A value with all that fields can have."""

    name: str
    size: int = 0
    made: Dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)


@frozen
class Other:
    """The same fields in another class."""

    name: str
    size: int = 0


def test_values_are_what_their_fields_are() -> None:
    """Equal fields make equal values, of one hash and one ``repr``; those of another class are others."""
    one = One("a", 1)
    one.made["x"] = 1
    assert one == One("a", 1) == replace(One("a"), size=1)
    assert {one, One("a", 1), One("a", 2)} == {one, One("a", 2)}
    assert one != Other("a", 1)
    assert repr(one) == "One(name='a', size=1)"


def test_a_frozen_dataclass_is_the_same_value() -> None:
    """But for the guard of its fields, which the type checker takes over, nothing differs from the standard one."""
    standard, ours = (make(type("One", (), dict(NAMESPACE))) for make in (dataclass(frozen=True), frozen))
    assert (repr(ours("a")), hash(ours("a"))) == (repr(standard("a")), hash(standard("a")))
    assert ours("a").__eq__(standard("a")) is NotImplemented
    assert set(vars(standard)) ^ set(vars(ours)) == {"__setattr__", "__delattr__"}
