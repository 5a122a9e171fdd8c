"""Started by ./dev as `python3.11 tools ARGS…`."""

import sys

from dev.main import main

sys.exit(main(sys.argv[1:]))
