"""``python -m kaapana_nb``: the same as the ``kaapana-nb`` command."""

from kaapana_nb.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
