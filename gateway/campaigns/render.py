"""Liquid templates behind a small interface: compile once, render for each recipient.

Owns the choice of engine (python-liquid), its dialect and its errors; what a template may cost is `campaigns/limits.py`'s. Must not
know contacts, tracking links or MIME. Templates are written by sites and so hostile: no attributes, files or environment can be
reached, variables in HTML are escaped, and whatever goes wrong in the engine is an error of the template (security 25 to 27, F30).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final

import msgspec
from liquid import BoundTemplate, Environment, RenderContext
from liquid.exceptions import LiquidError, LiquidInterrupt, StopRender
from liquid.output import LimitedStringIO

from gateway.campaigns import limits, pieces
from gateway.errors import TemplateError

_SAID_LIMIT: Final = 200
"""Longest message of the engine that is passed on, in characters."""
_REPEATED: Final = re.compile(r"(?<=^can't read property).*|(?<=^could not cast string).*", re.DOTALL)
"""Where the engine repeats a value, which may be a recipient's."""


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
        with limits.budget():
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
        with limits.budget():
            return pieces.values(self.pieces, variables, _render_block, limits.OUTPUT_LIMIT_BYTES // 4)


def compile_template(subject: str, html: str, text: str) -> Template:
    """Parse the three parts.

    Raises:
        TemplateError: a syntax error, an unknown tag or filter, too large; names part and line.
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
    with _translated(part):
        limits.check_source(source)
        return environment.from_string(source)


def _render(part: str, template: BoundTemplate, variables: Mapping[str, object]) -> str:
    with _translated(part):
        return template.render(variables)


def _render_block(block: pieces.Block, context: RenderContext) -> str:
    part = "html" if block.template.env.autoescape else "text"
    buffer = LimitedStringIO(limit=limits.OUTPUT_LIMIT_BYTES)
    with _translated(part):
        block.node.render(context, buffer)
        return buffer.getvalue()


@contextmanager
def _translated(part: str) -> Generator[None]:
    try:
        yield
    except (LiquidInterrupt, StopRender):
        raise  # no errors: `break` and its kin
    except LiquidError as error:
        where = error.context()
        raise TemplateError(_said(str(error.message)), part=part, line=where[0] if where else None) from error
    except Exception as error:
        # Filters meet data they were not written for: huge ranges, dates that the C library does not have, text where a number was
        # wanted. What they raise then is nobody's promise, and must not become the dispatcher's end.
        raise TemplateError(_said(f"{type(error).__name__}: {error}"), part=part) from error


def _said(text: str) -> str:
    """One short line without controls: Postgres has no place for a NUL, and a log none for the rest."""
    text = _REPEATED.sub("", text)[:_SAID_LIMIT]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)[:_SAID_LIMIT]


class _Limited(Environment):
    """The engine with its own limits on, beside those of `limits`."""

    template_class = limits.BoundedTemplate
    loop_iteration_limit = limits.LOOP_LIMIT
    output_stream_limit = limits.OUTPUT_LIMIT_BYTES
    local_namespace_limit = None  # the work limits it; the engine would look at all names at each assignment
    context_depth_limit = 20
    block_nesting_limit = 50

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        """Register the engine's own tags and filters, less those that load, and less `safe`."""
        super().setup_tags_and_filters(extra=extra)
        for tag in ("include", "render"):
            del self.tags[tag]
        del self.filters["safe"]  # would switch off the escaping of variables
        for name, function in self.filters.items():
            self.filters[name] = limits.bounded(name, function)


_PLAIN: Final = _Limited(autoescape=False)
_HTML: Final = _Limited(autoescape=True)
