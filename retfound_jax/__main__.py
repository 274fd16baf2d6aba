"""`python -m retfound_jax` is the command `retfound`."""

from __future__ import annotations

import sys

from retfound_jax.cli.main import main

if __name__ == '__main__':  # Grain's workers are spawned and import this module again under another name
    sys.exit(main())
