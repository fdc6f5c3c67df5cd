"""`python -m esper` is the command `esper`."""

from __future__ import annotations

import sys


def main() -> int:
    """`esper.scripts.train.main`, where Ctrl-C may come while it is imported, too."""
    try:
        from esper.scripts import train

        return train.main()
    except KeyboardInterrupt:
        print("esper: stopped at once", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
