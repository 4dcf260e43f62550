"""``python -m clockwork`` is the command ``clockwork``."""

import sys

from clockwork.cli import main

if __name__ == "__main__":
    sys.exit(main())
