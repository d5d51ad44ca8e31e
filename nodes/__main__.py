"""``python -m nodes`` is ``sanloom``."""

from nodes.cli.main import main

if __name__ == "__main__":
    main()
