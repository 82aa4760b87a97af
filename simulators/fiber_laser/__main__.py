"""``python -m fiber_laser`` runs the command ``fiber-laser``."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
