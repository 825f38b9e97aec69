"""The three files while the gateway runs: a change is in force within two seconds, without a restart.

Owns the reading, in the supervisor alone, so that no two processes of a machine differ, and the one line that says what became of
it: taken, with what changed (`config.loaded`); refused, with file, line, key and reason, and all of what was before stays in force
(`config.refused`); or in need of a restart (`config.needs_restart`). A text counts once it has been read twice alike: an editor
that is writing it may have emptied it first. A file that goes away is refused as a wrong one is, and so is one
that has lost all its keys: a full disk leaves such files. One that comes is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from gateway.app.brief import Tuning
from gateway.config import Loaded, read_document_here
from gateway.config.live import in_force
from gateway.config.shown import changes, told
from gateway.config.strict_toml import Document, parse_toml, read_text
from gateway.errors import ConfigError
from gateway.mta.bounce_rules import BounceRules, check_bounces
from gateway.telemetry import Event, log
from gateway.throttle.shaping import check_throttles

T = TypeVar("T")

LOOK_EVERY_S: Final = 0.5
_AGAIN_S: Final = 0.1
_EMPTIED_HINT: Final = (
    "to go back to the defaults, leave one key with its default (in bounces.toml: rule = []), or restart"
)


class Files(msgspec.Struct, frozen=True):
    """Where the files are, or would be; None: nothing is read, defaults hold."""

    config: Path | None = None
    throttles: Path | None = None
    bounces: Path | None = None


class Watched(Generic[T]):
    """One file: what was in it when it was judged last, and what was wrong with it."""

    # Mutable on purpose: a memory of one file.
    def __init__(self, path: Path, check: Callable[[Document], tuple[T, Sequence[ConfigError]]]) -> None:
        """Take what makes a value of the file; one that is not there yet is waited for."""
        self.path, self._check = path, check
        self._exists = not _is_missing(path)
        self._has_keys = False  # of what was taken last
        self._judged: tuple[str, str] | None = None  # text, or why there is none
        self._seen: tuple[str, str] | None = None
        self._problem = ""
        self.mended = False
        """Whether the value that `look` gave last comes after a refusal."""

    def forget(self) -> None:
        """Judge the file anew with the next look, and say again what is wrong."""
        self._judged, self._problem = None, ""

    def look(self) -> T | None:
        """Read the file; its value if it is not as it was judged last, has been read like this twice, and is right."""
        found = self._read()
        if found is None or found == self._judged or found != self._seen:
            self._seen = found
            return None
        self._judged = found
        text, unreadable = found
        try:
            if unreadable:
                raise ConfigError(unreadable, path=self.path)
            document = parse_toml(self.path, text)
            value, errors = self._check(document)
            if errors:
                raise ConfigError.first_of(errors)
            has_keys = _has_keys(document.data)
            if self._has_keys and not has_keys:
                raise ConfigError("no key is left in it", path=self.path, hint=_EMPTIED_HINT)
        except ConfigError as error:
            self._refuse(str(error))
            return None
        except Exception as error:  # no text of a file may end a gateway that runs
            self._refuse(f"{self.path}: cannot be judged: {type(error).__name__}: {error}")
            return None
        self._has_keys = has_keys
        self.mended, self._problem = bool(self._problem), ""
        return value

    def _read(self) -> tuple[str, str] | None:
        if not self._exists and _is_missing(self.path):
            return None
        self._exists = True
        try:
            return read_text(self.path), ""
        except ConfigError as error:
            return "", error.problem

    def _refuse(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            log.error(
                Event.CONFIG_REFUSED,
                path=str(self.path),
                problem=problem,
                in_force="what was before: nothing of this file was taken",
            )


class Watch:
    """All files of one gateway, and the tuning that came of them."""

    # Mutable on purpose: what is in force.
    def __init__(
        self,
        files: Files,
        started: Tuning,
        check_config: Callable[[Document], Loaded] = read_document_here,
    ) -> None:
        """Take what the gateway was started with; `check_config` puts file and environment together."""
        self.now = started
        self._started = started.config
        self._waiting: list[str] = []  # what has been said to wait for a restart

        def config_of(document: Document) -> tuple[Loaded, Sequence[ConfigError]]:
            loaded = check_config(document)
            return loaded, loaded.errors

        self._config = Watched(files.config, config_of) if files.config else None
        self._throttles = Watched(files.throttles, check_throttles) if files.throttles else None
        self._bounces = Watched(files.bounces, check_bounces) if files.bounces else None

    def forget(self) -> None:
        """Judge all files anew, and say what they come to though nothing changed."""
        for watched in (self._config, self._throttles, self._bounces):
            if watched:
                watched.forget()
        self._waiting = []

    def look(self, *, asked: bool = False) -> None:
        """Read the files and bring `now` up to date. `asked`: say what they come to, too, where nothing has changed."""
        if self._config and (loaded := self._config.look()):
            self._take_config(self._config, loaded, asked=asked)
        if self._throttles and (shaping := self._throttles.look()):
            what = told(changes(self.now.shaping, shaping))
            self.now = msgspec.structs.replace(self.now, shaping=shaping)
            _say_taken(self._throttles, what, asked=asked)
        if self._bounces and (rules := self._bounces.look()):
            what = told(_rule_changes(self.now.bounce_rules, rules))
            self.now = msgspec.structs.replace(self.now, bounce_rules=rules)
            _say_taken(self._bounces, what, asked=asked)

    def _take_config(self, watched: Watched[Loaded], loaded: Loaded, *, asked: bool) -> None:
        config = in_force(self._started, loaded.config)
        what = told(changes(self.now.config, config))
        self.now = msgspec.structs.replace(self.now, config=config)
        _say_taken(watched, what, asked=asked)
        waiting = told(changes(config, loaded.config))
        if waiting and waiting != self._waiting:
            log.warning(Event.CONFIG_NEEDS_RESTART, path=str(watched.path), changes=waiting)
        elif self._waiting and not waiting:
            log.info(
                Event.CONFIG_LOADED, path=str(watched.path), changes=["nothing waits for a restart any more"]
            )
        self._waiting = waiting


async def watch(
    watching: Watch,
    retune: Callable[[Tuning], object],
    asked: asyncio.Event,
    *,
    look_every_s: float = LOOK_EVERY_S,
) -> None:
    """Look at the files until cancelled, and hand on what changed; at once when `asked` is set."""
    while True:
        before = watching.now
        if asked.is_set():
            asked.clear()
            watching.forget()
            await asyncio.to_thread(watching.look, asked=True)
            await asyncio.sleep(_AGAIN_S)
            await asyncio.to_thread(watching.look, asked=True)
        else:
            await asyncio.to_thread(watching.look)
        if watching.now != before:
            retune(watching.now)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), look_every_s)


def _is_missing(path: Path) -> bool:
    """Whether there is no such file. What keeps us from seeing that is no such thing: reading it will say what is wrong."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _has_keys(data: Any) -> bool:
    """Whether a document says anything: tables alone do not."""
    return any(map(_has_keys, data.values())) if isinstance(data, dict) else True


def _say_taken(watched: Watched[T], what: list[str], *, asked: bool) -> None:
    if what or watched.mended or asked:
        log.info(Event.CONFIG_LOADED, path=str(watched.path), changes=what)


def _rule_changes(before: BounceRules, after: BounceRules) -> list[str]:
    """Say which rules came and went; their place matters, so a new order is a change too."""
    gone = [rule for rule in before.rule if rule not in after.rule]
    come = [rule for rule in after.rule if rule not in before.rule]
    said = [f"no more: '{rule.pattern}' is {rule.bounce_class}" for rule in gone]
    said += [f"rule {after.rule.index(rule) + 1}: '{rule.pattern}' is {rule.bounce_class}" for rule in come]
    if not said and before != after:
        said.append("the order of the rules")
    return said
