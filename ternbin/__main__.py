"""``python -m ternbin``: the command line of this interpreter's environment."""

import sys

from ternbin.cli import main

sys.exit(main())
