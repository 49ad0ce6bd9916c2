"""What `make repro` does before it calls DVC: mend what a killed DVC left, and stop where DVC would delete a user's file."""

import sys

from odn.sanitize import sanitized
from pipelines.guard import SHOWN, strangers
from pipelines.leftovers import mend


def main() -> int:
    """Return 0, or 2 after a line for each file that is in the way."""
    try:
        lines, found = mend(), strangers()
    except OSError as error:  # a folder that may not be read, or written
        sys.stderr.write(f"odn: {sanitized(error)}\n")
        return 2
    lines += [f"{name} is not of odn's making, and DVC would delete it with its folder; move it elsewhere" for name in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"and {len(found) - SHOWN} more; move them elsewhere")
    sys.stderr.writelines(f"odn: {sanitized(line)}\n" for line in lines)
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main())
