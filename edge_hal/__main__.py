"""`python -m edge_hal` is `edge-hal`."""

from __future__ import annotations

from edge_hal.cli import main

if __name__ == "__main__":
    main()
