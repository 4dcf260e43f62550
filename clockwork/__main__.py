"""The command ``clockwork``, also available as ``python -m clockwork``."""

import sys

from clockwork import __version__


def main() -> int:
    """Print the version, which needs no extra, or run the command line, which needs ``[experiments]``."""
    if sys.argv[1:] == ["--version"]:
        print(f"clockwork {__version__}")
        return 0
    from clockwork.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
