"""``python -m lightning_plugins.simulators.fiber_laser`` is the command ``fiber-laser``."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
