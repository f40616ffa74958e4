"""The performance report as a page: self-contained, escaped, and drawn from the real values."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import List
from xml.etree import ElementTree

import pytest

from ccproxy.perf.page import page
from ccproxy.perf.sample import Sample
from ccproxy.perf.summary import Report
from test_perf_summary import GOOD, SETTINGS

CANARY = "<script>alert(1)</script>\"'&"


def drawings(text: str) -> List[ElementTree.Element]:
    """The plots of a page, parsed."""
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def test_it_needs_nothing_from_elsewhere() -> None:
    """No address, no script, and a policy that allows neither."""
    text = page(Report("m", SETTINGS, ((GOOD, GOOD),)))
    assert not re.search(r"https?:|src=|href=|url\(|@import|<script|\son\w+=", text)
    assert "default-src 'none'" in text


def test_everything_is_escaped() -> None:
    """A model's name and a provider's words are text."""
    text = page(Report(CANARY, SETTINGS, ((GOOD, GOOD), (GOOD, Sample(CANARY)))))
    assert "<script" not in text
    assert (
        text.count("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;") == 4
    )  # title, heading, headline, failure


def test_every_answer_is_a_dot_where_it_belongs() -> None:
    """The dots of the total time lie from left to right as the times do, on a scale that begins at 0."""
    slow = replace(GOOD, total=1.0)
    first, total, course = drawings(page(Report("m", SETTINGS, ((GOOD, slow), (GOOD, Sample("refused"))))))
    dots = [float(dot.attrib["cx"]) for dot in total.iter("circle")]
    assert dots == [435.0, 435.0, 740.0]  # 0.5 s is half way from 130 (0 s) to 740 (1 s)
    assert len(list(first.iter("circle"))) == 3
    assert len([mark for mark in course.iter() if mark.attrib.get("class") == "mark"]) == 3 + 2  # and two of the legend
    assert [text.text for text in total.iter("text")][:6] == ["0 ms", "200 ms", "400 ms", "600 ms", "800 ms", "1000 ms"]


@pytest.mark.parametrize("sample", [Sample("refused"), replace(GOOD, total=0.0, first_content=0.0)])
def test_nothing_to_draw(sample: Sample) -> None:
    """Without answers, or with times of zero, the page is a page."""
    text = page(Report("m", SETTINGS, ((sample, sample),)))
    assert ("No answers." in text) == bool(sample.error)
    drawings(text)
