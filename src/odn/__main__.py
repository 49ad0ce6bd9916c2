"""The program `odn`, also `python -m odn`."""

import atexit
import os
import sys
import threading
from typing import NoReturn

from odn.cli import main


def program() -> NoReturn:
    """Run the command line, and end without taking apart what was imported, for which Python needs a second or two once torch is.

    Threads are waited for, exit handlers run and output is written as at Python's own end; `multiprocessing` ends its processes so.
    An exception, also argparse's SystemExit, ends the program in Python's own way.
    """
    code = main()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # the reader of our output has seen enough
        pass
    except OSError as error:
        os.write(2, f"odn: the output could not be written: {error}\n".encode())
        code = 2
    os._exit(code)


if __name__ == "__main__":
    program()
