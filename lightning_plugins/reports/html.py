"""A small HTML element builder, and the page template and style sheet of all reports.

Text and attributes are escaped here and nowhere else.
"""

import re
from html import escape

_VOID = frozenset({"br", "hr", "img", "meta", "link", "source", "col"})
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_RAW_TEXT = frozenset({"script", "style"})


class Element:
    """An HTML element; ``str`` returns its HTML.

    Args:
        tag: Name of the element.
        *children: Elements, or values shown as text. None is omitted.
        **attributes: Attributes by name. A trailing underscore is removed (``class_``), and other
            underscores become hyphens. True makes an attribute without a value; None and False omit
            it.

    Raises:
        ValueError: A name is invalid, an attribute is an event handler (``on…``), the element is a
            ``script``, or it is a ``style`` that contains ``<``.
    """

    def __init__(self, tag: str, *children: object, **attributes: object) -> None:
        self._tag = _checked(tag)
        if tag == "script":
            raise ValueError("<script>: a report has no scripts")
        if tag in _VOID and children:
            raise ValueError(f"<{tag}> cannot have children")
        if tag in _RAW_TEXT and any("<" in str(child) for child in children):
            raise ValueError(f"<{tag}>: its text cannot be escaped, so it must not contain '<'")
        self._children = children
        self._attributes = attributes

    def __str__(self) -> str:
        start = f"<{self._tag}{''.join(map(_attribute, self._attributes.items()))}>"
        if self._tag in _VOID:
            return start
        if self._tag in _RAW_TEXT:
            return f"{start}{''.join(map(str, self._children))}</{self._tag}>"
        return f"{start}{''.join(map(_child, self._children))}</{self._tag}>"


def page(title: str, *content: object, css: str = "") -> str:
    """Return a self-contained HTML page: the title as heading, then the content.

    Args:
        title: Title of the page.
        *content: Elements of the body.
        css: Rules that are added to the common style sheet.
    """
    head = Element(
        "head",
        Element("meta", charset="utf-8"),
        Element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Element("title", title),
        Element("style", _CSS + css),
    )
    body = Element("body", Element("h1", title), *content)
    return f"<!doctype html>\n{Element('html', head, body, lang='en')}\n"


def _child(child: object) -> str:
    if child is None:
        return ""
    return str(child) if isinstance(child, Element) else escape(str(child), quote=False)


def _attribute(item: tuple[str, object]) -> str:
    name, value = item
    name = _checked(name.rstrip("_").replace("_", "-"))
    if name.lower().startswith("on"):
        raise ValueError(f"{name!r}: a report has no event handlers")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(str(value), quote=True)}"'


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}: expected the name of an element or attribute")
    return name


# No external font, picture or script.
_CSS = """
:root { color-scheme: light dark; --ink: #24292f; --soft: #57606a; --line: #d8dee4;
  --page: #ffffff; --card: #f6f8fa; --good: #1a7f37; --bad: #b42318; --open: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #d7dde4; --soft: #9aa5b1; --line: #353c45;
  --page: #14181d; --card: #1b2027; --good: #4cc26b; --bad: #ff8a7d; --open: #e0b04a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .3rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 0 0 .3rem; }
p { margin: .35rem 0; max-width: 46rem; }
.soft, dt, caption { color: var(--soft); }
.soft { font-size: .92rem; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .45rem .9rem .45rem 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); white-space: nowrap; }
caption { text-align: left; padding-bottom: .3rem; }
.arms td { white-space: nowrap; }
.arms td:nth-child(n+2), .arms th:nth-child(n+2) { text-align: right; }
.verdict { font-weight: 650; }
.supported { color: var(--good); }
.refuted { color: var(--bad); }
.open { color: var(--open); }
.warning { color: var(--bad); font-size: .9rem; display: block; }
.claim { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.1rem 1.3rem; margin: 1.2rem 0; }
.claim img { display: block; width: 100%; max-width: 54rem; height: auto; margin: .9rem 0 .3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.1rem;
  margin: .7rem 0 0; font-size: .92rem; }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--soft); }
a { color: inherit; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
@media print { details { display: none; } .claim { break-inside: avoid; } }
"""
