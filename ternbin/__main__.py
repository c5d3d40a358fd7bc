"""``python -m ternbin``: the command line where the console script is not on PATH."""

import sys

from ternbin.cli import main

sys.exit(main())
