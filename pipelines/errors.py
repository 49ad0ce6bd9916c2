"""What can go wrong with a run, beside what can go wrong with odn."""

from odn.errors import OdnError


class RunFailedError(OdnError):
    """Report a run that ended otherwise than well: which step, and where to read on."""
