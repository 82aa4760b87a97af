"""A tiny HTML element builder: text and attributes are escaped here, and nowhere else."""

import re
from html import escape

_VOID = frozenset({"br", "hr", "img", "meta", "link", "source", "col"})
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_RAW_TEXT = frozenset({"script", "style"})


class Element:
    """An HTML element.

    Args:
        tag: name of the element.
        *children: elements, or values shown as text; None is left out.
        **attributes: a trailing underscore is dropped (``class_``), other underscores become
            hyphens; True gives a bare attribute, None and False none.

    Raises:
        ValueError: for a tag or attribute that is not a plain name, an event handler
            (``on…``), a ``script``, or a ``style`` with a ``<`` in it.
    """

    def __init__(self, tag: str, *children: object, **attributes: object) -> None:
        self._tag = _checked(tag)
        if tag == "script":
            raise ValueError("a report has no scripts")
        if tag in _VOID and children:
            raise ValueError(f"<{tag}> cannot have children")
        if tag in _RAW_TEXT and any("<" in str(child) for child in children):
            raise ValueError(f"the text of <{tag}> cannot be escaped, so it must not hold '<'")
        self._children = children
        self._attributes = attributes

    def __str__(self) -> str:
        """The element as HTML."""
        start = f"<{self._tag}{''.join(map(_attribute, self._attributes.items()))}>"
        if self._tag in _VOID:
            return start
        if self._tag in _RAW_TEXT:
            return f"{start}{''.join(map(str, self._children))}</{self._tag}>"
        return f"{start}{''.join(map(_child, self._children))}</{self._tag}>"


def document(root: Element) -> str:
    """A whole HTML document."""
    return f"<!doctype html>\n{root}\n"


def _child(child: object) -> str:
    if child is None:
        return ""
    return str(child) if isinstance(child, Element) else escape(str(child), quote=False)


def _attribute(item: tuple[str, object]) -> str:
    name, value = item
    name = _checked(name.rstrip("_").replace("_", "-"))
    if name.lower().startswith("on"):
        raise ValueError(f"a report has no event handlers, got {name!r}")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(str(value), quote=True)}"'


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name of an element or attribute: {name!r}")
    return name
