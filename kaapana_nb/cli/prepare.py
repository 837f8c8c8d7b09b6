"""Last step of the set-up (``python -m kaapana_nb.cli.prepare``): the sample batch and the base image."""

from __future__ import annotations

import sys
import time

from kaapana_nb.errors import KaapanaNbError
from kaapana_nb.settings import Settings


def prepare(settings: Settings) -> None:
    """Make the sample batch and the base image where they are not there yet, with a line for each."""
    from kaapana_nb.emulator.sample import ensure_sample
    from kaapana_nb.ship.base_image import ensure_base_image

    settings.home.mkdir(parents=True, exist_ok=True)
    for title, ensure in (("sample batch", ensure_sample), ("base image", ensure_base_image)):
        start = time.monotonic()
        place = ensure(settings, log=_note)
        _note(f"{title}: {place} ({time.monotonic() - start:.1f} s)")


def _note(text: object) -> None:
    print(f"      {text}", file=sys.stderr, flush=True)


def main() -> int:
    try:
        prepare(Settings.from_environ())
    except KaapanaNbError as error:
        print(f"set-up: {error.problem}\n  remedy: {error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
