"""``python -m nodes`` is ``sanloom``."""

import sys

from nodes.cli.main import main

sys.exit(main())
