"""Exit codes of an operator's container and of the command line."""

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
SKIP: Final = 126
"""Nothing to do. The platform (0.6) marks the task as skipped."""
