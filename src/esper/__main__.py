"""`python -m esper` is the command `esper`."""

from __future__ import annotations

from esper.scripts.train import main

if __name__ == "__main__":
    raise SystemExit(main())
