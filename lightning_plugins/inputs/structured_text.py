"""JSON and YAML of bounded depth and size, with finite numbers."""

import re
from itertools import accumulate
from typing import Any

from lightning_plugins.inputs.limits import LimitError, limit, require
from lightning_plugins.inputs.messages import quoted

# Also matches a string without an end: a failed match would begin again at each quote inside it.
_JSON_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKET = re.compile(r"[^\[\]{}]+")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
_NUMBER = re.compile(r"[-+.0-9][-+.:_0-9eE]*")
_LONGEST_NUMBER = 100


def parse_json(text: str | bytes, what: str = "JSON text") -> Any:
    """Return the value of a JSON text.

    Args:
        text: One JSON value.
        what: The text's origin, for example a path, for the message.

    Raises:
        ValueError: The text is not JSON, is nested too deeply, or contains NaN or infinity.
    """
    import json

    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    check_json_depth(text, what)
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not valid JSON: {error}") from error


def check_json_depth(text: str, what: str = "JSON text") -> None:
    """Check the depth of a JSON text, in time linear in its length.

    Raises:
        LimitError: The text is nested too deeply.
    """
    allowed = limit("nesting")
    if text.count("[") + text.count("{") <= allowed:
        return
    brackets = _NO_BRACKET.sub("", _JSON_STRING.sub("", text))
    depth = max(accumulate(map(_STEP.__getitem__, brackets)), default=0)
    if depth > allowed:
        raise LimitError("nesting", depth, what)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{quoted(text)} is too large for a float")
    return number


def parse_yaml(text: str, what: str = "YAML text", loader: Any = None) -> Any:
    """Return the value of a YAML text, of the safe types only.

    Args:
        text: One YAML document.
        what: The text's origin, for example a path, for the message.
        loader: A subclass of PyYAML's ``SafeLoader``, which is the default.

    Raises:
        LimitError: The text is nested too deeply, or too large when its anchors are expanded.
        ValueError: The text is not YAML.
    """
    import yaml

    try:
        check_yaml(text, what)
        return yaml.load(text, Loader=loader or getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except LimitError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{what} is not valid YAML: {' '.join(str(error).split())}") from error
    except (LookupError, AttributeError, OverflowError) as error:  # as from !!bool 3
        raise ValueError(f"{what} is not valid YAML: a value is not of its type") from error


def check_yaml(text: str, what: str = "YAML text") -> None:
    """Check the depth and the expanded size of a YAML text, in time linear in its length.

    Raises:
        LimitError: The text is nested too deeply, or too large when its anchors are expanded.
        ValueError: An anchor contains itself, or a number is too long.
        yaml.YAMLError: The text is not YAML.
    """
    import yaml

    if len(text) <= limit("nesting") and "*" not in text:
        return
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    events = yaml.parse(text, Loader=loader)
    # Values and nested levels below each open collection, after those of the document.
    sizes, heights = [0], [0]
    open_anchors: list[str | None] = []
    anchored: dict[str, tuple[int, int] | None] = {}
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            sizes.append(1)
            heights.append(0)
            open_anchors.append(event.anchor)
            require("nesting", len(open_anchors), what)
            if event.anchor is not None:
                anchored[event.anchor] = None
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            size, height, anchor = sizes.pop(), heights.pop() + 1, open_anchors.pop()
        elif isinstance(event, yaml.ScalarEvent):
            # PyYAML reads 1:30 to base 60, in time quadratic in the length.
            is_plain = event.implicit[0] or event.tag is not None
            if is_plain and len(event.value) > _LONGEST_NUMBER and _NUMBER.fullmatch(event.value):
                raise ValueError(f"{what}: a number of {len(event.value):,} characters")
            # A long text counts several times, because an alias repeats it in messages.
            size, height, anchor = 1 + len(event.value) // 64, 0, event.anchor
        elif isinstance(event, yaml.AliasEvent):
            size, height = _expanded(anchored, event.anchor or "", what)
            anchor = None
        else:
            continue
        if anchor is not None:
            anchored[anchor] = size, height
        sizes[-1] += size
        heights[-1] = max(heights[-1], height)
        require("yaml_nodes", sizes[-1], what)
        require("nesting", len(open_anchors) + height, what)


def _expanded(
    anchored: dict[str, tuple[int, int] | None], anchor: str, what: str
) -> tuple[int, int]:
    expanded = anchored.get(anchor, (0, 0))  # an unknown anchor is an error of the loader
    if expanded is None:
        raise ValueError(f"{what}: the anchor {quoted(anchor)} contains itself")
    return expanded
