"""A command line's parser whose complaint is one line, fit to be shown."""

import argparse
import sys
from typing import NoReturn

from odn.sanitize import sanitized


class Parser(argparse.ArgumentParser):
    """Be argparse's parser, and refuse as every other part does: one line that begins with `odn:`, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and where to read what is right."""
        sys.stderr.write(f"odn: {sanitized(message)}; see '{self.prog} --help'\n")
        raise SystemExit(2)
