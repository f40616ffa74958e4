"""``frozen``: the decorator of classes whose fields are given once, and compared.

For the type checker it is ``dataclass(frozen=True)``; at run time nothing guards the fields. The guard is two more
methods to compile for each of seventy classes, a tenth of a start, and makes a value take three times as long to
create, which a stream does for every chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Type, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(frozen_default=True, field_specifiers=(field,))
    def frozen(cls: Type[T]) -> Type[T]:
        """Make a class of its annotations."""

else:
    frozen = dataclass(unsafe_hash=True)
