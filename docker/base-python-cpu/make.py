"""Make the base image of processing containers from this machine's Python, as an OCI image layout.

For places where no public registry can be reached; elsewhere the Dockerfile beside this file does.
Run it from the repository: ``.venv/bin/python docker/base-python-cpu/make.py``. It prints the layout's path.
"""

from __future__ import annotations

import sys

from kaapana_nb.errors import KaapanaNbError
from kaapana_nb.settings import Settings
from kaapana_nb.ship.base_image import ensure_base_image


def main() -> int:
    """Make the image unless it is there, and print where."""
    try:
        path = ensure_base_image(Settings.from_environ(), log=lambda line: print(line, file=sys.stderr))
    except KaapanaNbError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
