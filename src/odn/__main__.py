"""Run the command line as `python -m odn`."""

import sys

from odn.cli import main

sys.exit(main())
