"""What the elements of HTML mean to a reader of text."""

from __future__ import annotations

from typing import Final


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


DROPPED: Final = _tags(
    """head nav aside script style noscript template svg iframe object embed canvas audio video map button
    select textarea input datalist progress dialog menu annotation annotation-xml"""
)
"""Never content: machinery, navigation, controls."""

DROPPED_ROLES: Final = _tags("navigation banner contentinfo complementary search dialog alertdialog menu")
"""Values of `role` that say the same of any element."""

INLINE: Final = _tags(
    """a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark math nobr q rp rt
    ruby s samp small span strike strong sub sup time tt u var wbr mi mn mo mrow msup msub mfrac semantics"""
)
"""Parts of a line; every other element begins and ends a block."""

SECTIONING: Final = _tags("main article section")
"""Inside these, `header` and `footer` belong to the content rather than to the site."""

HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}

NOT_NESTING: Final = _tags(
    """area base br col embed hr img input link meta param source track wbr p li dt dd tr td th thead tbody
    tfoot option optgroup colgroup rp rt html head body"""
)
"""Void, or closed by their next sibling, so many of them do not make a document deep."""
