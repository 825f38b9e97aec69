"""What a template may cost: the size of its code, the size of its tags, and the work of one rendering.

Owns the counting, as parts of the engine (python-liquid) that count before they do: a render context, a template, a buffer, ranges and
filters. Must not know what a template is for (`campaigns/render.py`). All is counted and nothing timed, so that a template fails or
not wherever it runs; a unit of work is about a character that is handled, and `WORK_LIMIT` of them take less than half a second.

The engine's own limits are kept beside these, but they miss much: loops one after the other, a `when` with the same value many times
(its block comes as often), comparisons, a list of which each item is the same long text, `uniq`, the lexer's look for an end.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from io import StringIO
from typing import Any, Final, TextIO, cast

from liquid import BoundTemplate, Environment, Node, RenderContext
from liquid.ast import ConditionalBlockNode
from liquid.builtin.expressions import FilteredExpression, Path, StringLiteral
from liquid.builtin.expressions.primitive import RangeLiteral
from liquid.exceptions import FilterArgumentError, LiquidSyntaxError, ResourceLimitError
from liquid.expression import Expression
from liquid.output import LimitedStringIO
from liquid.token import TOKEN_TAG, Token
from liquid.undefined import UNDEFINED

SOURCE_LIMIT: Final = 1_500_000
"""Longest source, in characters: the API takes 1,000,000, and the marks of tracked links come on top."""
CODE_LIMIT: Final = 100_000
"""Characters in all tags of a source together; a large newsletter has some thousand."""
TAG_LIMIT: Final = 4_000
"""Longest tag. The engine's patterns take time in the square of it where a quote or a bracket does not end."""
PARTS_LIMIT: Final = 1_000
"""Parts of one tag's expression: values, operands, `elsif`s."""
OUTPUT_LIMIT_BYTES: Final = 2_000_000
LOOP_LIMIT: Final = 10_000
"""Iterations of a loop; of nested ones, multiplied."""
TEXT_LIMIT: Final = 200_000
"""Largest value that a variable may show, or a filter take or make, in characters, with all that is in it."""
ITEMS_LIMIT: Final = 10_000
WORK_LIMIT: Final = 5_000_000
"""Units of work of one rendering."""

_NODE_WORK: Final = 10
_FILTER_WORK: Final = 40
_INT_BITS: Final = 256
_LITERAL_PART: Final = 100  # characters of a literal that count as one part
_DATE_LIMIT: Final = 200  # characters of a date and its format
_HTML_LIMIT: Final = 20_000  # `strip_html` takes time in the square of it
_NAMED: Final = {"default": {"allow_false"}}
_GIVEN: Final = frozenset({"environment", "context"})  # by the engine, not by the template

_OPENING: Final = re.compile(r"\{[{%]")
_VERBATIM: Final = re.compile(r"\{%-?\s*(raw|doc)\s*-?%\}")
_ENDS: Final = {name: re.compile(rf"\{{%-?\s*end{name}\s*-?%\}}") for name in ("raw", "doc")}

_spent: ContextVar[list[int]] = ContextVar("spent")


class WorkLimitError(ResourceLimitError):
    """A rendering that costs too much."""


@contextmanager
def budget() -> Generator[None]:
    """Give what is rendered inside one `WORK_LIMIT` together."""
    token = _spent.set([0])
    try:
        yield
    finally:
        _spent.reset(token)


def spend(units: int) -> None:
    """Count work.

    Raises:
        WorkLimitError: it is more than one rendering may cost.
    """
    spent = _spent.get()
    spent[0] += units
    if spent[0] > WORK_LIMIT:
        raise WorkLimitError(f"it costs too much to render (more than {WORK_LIMIT} steps)", token=None)


def check_source(source: str) -> None:
    """Look at a source before the engine does: its lexer looks for the end of each tag to the end of the source, tag by tag.

    Raises:
        LiquidSyntaxError: too long, too much code, or a tag that does not end; also in a comment.
    """
    if len(source) > SOURCE_LIMIT:
        raise _refused(source, 0, f"{len(source)} characters; at most {SOURCE_LIMIT}")
    code = at = 0
    while (opening := _OPENING.search(source, at)) is not None:
        start = opening.start()
        end = source.find("}}" if opening[0] == "{{" else "%}", start + 2) + 2
        if end < 2:
            raise _refused(source, start, "a tag that does not end")
        if end - start > TAG_LIMIT:
            raise _refused(source, start, f"a tag of {end - start} characters; at most {TAG_LIMIT}")
        code += end - start
        if code > CODE_LIMIT:
            raise _refused(source, start, f"more than {CODE_LIMIT} characters in tags")
        at = end
        if (verbatim := _VERBATIM.fullmatch(source, start, end)) is not None:
            ending = _ENDS[verbatim[1]].search(source, end)
            if ending is None:
                raise _refused(source, start, f"{verbatim[1]} without its end{verbatim[1]}")
            at = ending.end()


def _refused(source: str, at: int, problem: str) -> LiquidSyntaxError:
    return LiquidSyntaxError(problem, token=Token(TOKEN_TAG, "", at, source))


class BoundedRange(RangeLiteral):
    """A range that may be walked."""

    __slots__ = ()

    def evaluate(self, context: RenderContext) -> range:
        """Give the range.

        Raises:
            WorkLimitError: it is too long; `contains` walks it, and so does a loop's offset.
        """
        found = super().evaluate(context)
        spend(size_of(found))
        return found


class BoundedContext(RenderContext):
    """What a template is rendered in; it counts each node, and each value that is looked up."""

    __slots__ = ()

    @property
    def disabled_tags(self) -> list[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """None are. Every node asks before it renders (`Node.render`), which is where nodes are counted."""
        spend(cast(BoundedTemplate, self.template).node_work)
        return []

    @disabled_tags.setter
    def disabled_tags(self, tags: list[str]) -> None: ...  # pyright: ignore[reportIncompatibleVariableOverride]

    def get(self, path: list[object], *, token: Token | None, default: object = UNDEFINED) -> object:
        """Look a value up."""
        found = super().get(path, token=token, default=default)
        spend(size_of(found))
        return found

    def get_buffer(self, buf: TextIO | None = None) -> StringIO:
        """Give a buffer for a part that is captured: what is written there need never come out."""
        return _CountedIO(OUTPUT_LIMIT_BYTES - (buf.size if isinstance(buf, LimitedStringIO) else 0))


class _CountedIO(LimitedStringIO):
    def write(self, s: str, /) -> int:
        spend(len(s))
        return super().write(s)


class BoundedTemplate(BoundTemplate):
    """A parsed template that knows what its heaviest node weighs: each node of it counts as that."""

    context_class = BoundedContext

    def __init__(self, env: Environment, nodes: list[Node], *args: Any, **kwargs: Any) -> None:
        """Weigh the nodes, and bound their ranges.

        Raises:
            LiquidSyntaxError: a tag has more than `PARTS_LIMIT` parts.
        """
        super().__init__(env, nodes, *args, **kwargs)
        self.node_work = _NODE_WORK * max(map(_weigh, _all_nodes(nodes, RenderContext(self))), default=1)


def _all_nodes(nodes: Iterable[Node], static: RenderContext) -> Iterator[Node]:
    left = list(nodes)
    while left:
        node = left.pop()
        yield node
        left += node.children(static)


def _weigh(node: Node) -> int:
    expressions = list(node.expressions())
    for alternative in getattr(node, "alternatives", ()):  # an `if` looks at its `elsif`s itself
        if isinstance(alternative, ConditionalBlockNode):
            expressions += alternative.expressions()
    parts = 1
    while expressions:
        expression = expressions.pop()
        if type(expression) is RangeLiteral:
            expression.__class__ = BoundedRange
        parts += 1 + len(expression.value) // _LITERAL_PART if isinstance(expression, StringLiteral) else 1
        if isinstance(expression, FilteredExpression):
            parts += len(expression.filters or ())
        elif isinstance(expression, Path):
            parts += len(expression.path)
        if parts > PARTS_LIMIT:
            raise LiquidSyntaxError(f"a tag of more than {PARTS_LIMIT} parts", token=node.token)
        expressions += cast(Iterable[Expression], expression.children())
    return parts


def size_of(value: object) -> int:
    """Return the characters and items of a value, with all that is in it.

    Raises:
        WorkLimitError: it is too large to be handled at all.
    """
    if isinstance(value, str) and len(value) <= TEXT_LIMIT:
        return len(value)
    size = 0
    left: list[object] = [value]
    while left:
        one = left.pop()
        inner: Iterable[object] = ()
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, (list, tuple, range)):
            items = cast(list[object], one)
            if len(items) > ITEMS_LIMIT:
                raise WorkLimitError(f"{len(items)} items; at most {ITEMS_LIMIT}", token=None)
            size += len(items)
            inner = () if isinstance(one, range) else items
        elif isinstance(one, dict):
            mapping = cast(Mapping[object, object], one)
            size += len(mapping)
            inner = (*mapping.keys(), *mapping.values())
        elif isinstance(one, int) and one.bit_length() > _INT_BITS:
            raise WorkLimitError(f"a number of {one.bit_length()} bits; at most {_INT_BITS}", token=None)
        else:
            size += 1
        if size > TEXT_LIMIT:
            raise WorkLimitError(f"a value of more than {TEXT_LIMIT} characters", token=None)
        left += inner
    return size


def bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter, so that what it takes, does and makes is counted."""

    @functools.wraps(function)  # keeps the marks by which the engine passes environment or context
    def filter_(value: object, *args: object, **kwargs: object) -> object:
        # What is named would not be looked at: `replace: seq: a, sub: b` made 40 GB of two texts of 200 kB.
        if unknown := kwargs.keys() - _GIVEN - _NAMED.get(name, set()):
            raise FilterArgumentError(f"{name} has no argument {min(unknown)}", token=None)
        size = size_of(value) + sum(map(size_of, args))
        spend(_FILTER_WORK + size + _more_work(name, value, args, size))
        result: object = function(value, *args, **kwargs)
        size_of(result)
        return result

    return filter_


def _more_work(name: str, value: object, args: tuple[object, ...], size: int) -> int:
    """Say what a filter does or makes beyond the size of what it takes."""
    more, count = 0, 1
    if isinstance(value, (list, tuple, range)):  # each item costs what some characters do
        count = len(cast(list[object], value))
        more = 4 * size
    match name:
        case "replace" if len(args) > 1:
            return more + _at_most(name, str(value).count(str(args[0])) * len(str(args[1])), TEXT_LIMIT)
        case "join" if args:
            return more + _at_most(name, count * len(str(args[0])), TEXT_LIMIT)
        case "uniq":  # compares each with each
            return more + count * size // 4
        case "sort" | "sort_natural":
            return more + 10 * size
        case "strip_html":
            return more + _at_most(name, size, _HTML_LIMIT) ** 2 // 1_000
        case "date":
            return more + _at_most(name, size, _DATE_LIMIT)
        case _:
            return more


def _at_most(name: str, size: int, limit: int) -> int:
    if size > limit:
        raise WorkLimitError(f"{name}: {size} characters; at most {limit}", token=None)
    return size
