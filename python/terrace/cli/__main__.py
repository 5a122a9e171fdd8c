import sys

from terrace.cli.main import main

sys.exit(main())
