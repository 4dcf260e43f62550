"""``python -m clockwork`` is the command ``clockwork``."""

import sys

from clockwork.cli import main

sys.exit(main())
