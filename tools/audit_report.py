"""Says what pip-audit found, from its JSON file; ends with 1 for vulnerabilities, with 3 where there is no answer to speak of.

A package that the service does not know counts as no answer: a mirror of an index may know none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

CLEAN: Final = 0
VULNERABLE: Final = 1
NO_ANSWER: Final = 3


def report(text: str) -> tuple[int, list[str]]:
    """The exit code and the lines to say for the text of the file."""
    try:
        listed: list[dict[str, Any]] = json.loads(text)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return NO_ANSWER, []
    known = [one for one in listed if "vulns" in one]
    if not known:
        return NO_ANSWER, []
    lines = [
        f"audit: {one['name']} {one['version']}: {bug['id']}, mended in {', '.join(bug['fix_versions']) or 'no release yet'}"
        for one in known
        for bug in one["vulns"]
    ]
    unknown = [str(one["name"]) for one in listed if "vulns" not in one]
    if unknown:
        lines.append(f"audit: the service does not know {len(unknown)}: {', '.join(unknown)}")
    bugs = sum(len(one["vulns"]) for one in known)
    lines.append(f"audit: {len(known)} packages, {bugs} known vulnerabilities")
    return (VULNERABLE if bugs else CLEAN), lines


def main() -> int:
    """Read the file that is named."""
    path = Path(sys.argv[1])
    status, lines = report(path.read_text(encoding="utf-8") if path.exists() else "")
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return status


if __name__ == "__main__":
    sys.exit(main())
