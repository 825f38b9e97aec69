"""Liquid templates behind a small interface: compile once, render for each recipient.

Owns the choice of engine (python-liquid), its limits and its errors. Must not know contacts, tracking links or MIME.
Templates are written by sites and so hostile: no attributes, files or environment can be reached, and what a template
may cost is counted, not timed, so that it fails or not wherever it runs (security 25 to 27, F30).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, cast

import msgspec
from liquid import BoundTemplate, Environment, RenderContext
from liquid.exceptions import FilterError, LiquidError
from liquid.output import LimitedStringIO

from gateway.campaigns import pieces
from gateway.errors import TemplateError

SOURCE_LIMIT: Final = 1_000_000
"""Longest template source, in characters."""
OUTPUT_LIMIT_BYTES: Final = 2_000_000
LOOP_LIMIT: Final = 10_000
"""Iterations of all loops of one rendering; nested ones multiply."""
TEXT_LIMIT: Final = 200_000
"""Longest string that a filter may take or make, in characters."""
ITEMS_LIMIT: Final = 10_000
WORK_LIMIT: Final = 20_000_000
"""Characters that all filters of one rendering may handle: some 0.2 s."""
_INT_BITS: Final = 256

_work: ContextVar[list[int]] = ContextVar("work")


class Rendered(msgspec.Struct, frozen=True):
    """What one recipient gets. `subject` and `text` are plain, `html` has its variables escaped."""

    subject: str
    html: str
    text: str


class Template:
    """A compiled template; immutable, for any number of renderings. Parts without tags cost nothing."""

    def __init__(self, parts: Mapping[str, str | BoundTemplate]) -> None:
        """Take the compiled parts; use `compile_template`."""
        self._parts = dict(parts)
        self.pieces: Final = pieces.take_apart(self._parts)

    @property
    def is_static(self) -> bool:
        """Whether all recipients get the same bytes."""
        return all(isinstance(part, str) for part in self._parts.values())

    def render(self, variables: Mapping[str, object]) -> Rendered:
        """Fill in the variables (JSON-like: mappings, lists, text, numbers); one that is missing is empty.

        Raises:
            TemplateError: a limit was reached, or a filter got what it cannot use; names part and line.
        """
        return Rendered(
            **{
                part: body if isinstance(body, str) else _render(part, body, variables)
                for part, body in self._parts.items()
            }
        )

    def values(self, variables: Mapping[str, object]) -> list[str] | None:
        """Return what the slots of `pieces` show for these variables; None: `render` has to do it.

        Raises:
            TemplateError: as `render`.
        """
        if self.pieces is None:
            return None
        # Sizes are counted in characters here and in octets by the engine: what might be over its limit is left to it.
        token = _work.set([0])
        try:
            return pieces.values(self.pieces, variables, _render_block, OUTPUT_LIMIT_BYTES // 4)
        finally:
            _work.reset(token)


def compile_template(subject: str, html: str, text: str) -> Template:
    """Parse the three parts.

    Raises:
        TemplateError: a syntax error, an unknown tag or filter; names part and line.
    """
    return Template(
        {
            "subject": _compile("subject", subject, _PLAIN),
            "html": _compile("html", html, _HTML),
            "text": _compile("text", text, _PLAIN),
        }
    )


def _compile(part: str, source: str, environment: Environment) -> str | BoundTemplate:
    if "{{" not in source and "{%" not in source:
        return source
    if len(source) > SOURCE_LIMIT:
        raise TemplateError(f"{len(source)} characters; at most {SOURCE_LIMIT}", part=part)
    with _translated(part):
        return environment.from_string(source)


def _render(part: str, template: BoundTemplate, variables: Mapping[str, object]) -> str:
    token = _work.set([0])
    try:
        with _translated(part):
            return template.render(variables)
    finally:
        _work.reset(token)


def _render_block(block: pieces.Block, context: RenderContext) -> str:
    part = "html" if block.template.env.autoescape else "text"
    buffer = LimitedStringIO(limit=OUTPUT_LIMIT_BYTES)
    with _translated(part):
        block.node.render(context, buffer)
        return buffer.getvalue()


@contextmanager
def _translated(part: str) -> Generator[None]:
    try:
        yield
    except LiquidError as error:
        where = error.context()
        raise TemplateError(str(error.message), part=part, line=where[0] if where else None) from error
    # Filters meet data they were not written for: huge ranges, text where a number was wanted.
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise TemplateError(f"{type(error).__name__}: {error}", part=part) from error


class _Limited(Environment):
    """The engine with its own limits on; what they miss (one huge string in one expression) the filters count."""

    loop_iteration_limit = LOOP_LIMIT
    output_stream_limit = OUTPUT_LIMIT_BYTES
    local_namespace_limit = 4 * TEXT_LIMIT
    context_depth_limit = 20
    block_nesting_limit = 50

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        """Register the engine's own tags and filters, less those that load, and less `safe`."""
        super().setup_tags_and_filters(extra=extra)
        for tag in ("include", "render"):
            del self.tags[tag]
        del self.filters["safe"]  # would switch off the escaping of variables
        for name, function in self.filters.items():
            self.filters[name] = _bounded(name, function)


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)  # keeps the marks by which the engine passes environment or context
    def bounded(value: object, *args: object, **kwargs: object) -> object:
        size = _size(value) + sum(map(_size, args))
        if name.startswith("replace") and len(args) > 1:
            size += str(value).count(str(args[0])) * len(str(args[1]))
        elif name == "join" and args and isinstance(value, (list, tuple, range)):
            size += len(value) * len(str(args[0]))
        if size > TEXT_LIMIT:
            raise FilterError(f"{name}: more than {TEXT_LIMIT} characters", token=None)
        work = _work.get()
        work[0] += size + 10
        if work[0] > WORK_LIMIT:
            raise FilterError("the template's filters handle too much", token=None)
        result: object = function(value, *args, **kwargs)
        _size(result)
        return result

    return bounded


def _size(value: object) -> int:
    """Return the characters or items of a value; refuses what is too big to be handled at all."""
    if isinstance(value, str):
        size, limit = len(value), TEXT_LIMIT
    elif isinstance(value, (list, tuple, range)):
        size, limit = len(cast(list[object], value)), ITEMS_LIMIT
    elif isinstance(value, int):
        size, limit = value.bit_length(), _INT_BITS
    else:
        return 1
    if size > limit:
        raise FilterError(f"a value of size {size}; at most {limit}", token=None)
    return size


_PLAIN: Final = _Limited(autoescape=False)
_HTML: Final = _Limited(autoescape=True)
