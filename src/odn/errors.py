"""What can go wrong in the user's world, as one tree.

OdnError                 anything a user can mend; the command line prints it and exits with 2
├── ConfigError          a setting is unknown, missing, ill-typed, out of range or contradicts another
├── DataError            data, or a record of a stage, is damaged or not what it should be
├── ExportError          a network has no equal in a runtime's format, or an export does not compute the same
├── MissingInputError    a stage's input is not there yet: an earlier stage has to run
├── OutputError          the place of an output holds what odn did not write
├── RequestError         a request to a server cannot be answered as it is
├── StorageError         an s3:// address cannot be read or written
├── TargetError          no network meets a target that was asked for
├── TrackingError        the MLflow server cannot be reached or refuses
└── TrainingError        training cannot go on: a non-finite loss, a device that is not there
    └── LostError        another process of the same training is gone; what ended that one is the reason

A caller's programming mistake is a `ValueError`; our own impossible is an `assert`.

Whatever an error is made of, what it says is fit to be shown: secrets, control characters and endless values are taken out in one place.
"""

from odn.sanitize import sanitized


class OdnError(Exception):
    """Say what, where, which value and the way out: one line an argument, each for a user to read."""

    @property
    def lines(self) -> tuple[str, ...]:
        """Return what is said, line by line, fit to be shown; a line break within an argument is written out."""
        return tuple(sanitized(line) for line in self.args)

    def __str__(self) -> str:
        return "\n".join(self.lines)


class ConfigError(OdnError):
    """Refuse a setting."""


class DataError(OdnError):
    """Refuse raw or prepared data, or a record."""


class ExportError(OdnError):
    """Refuse an export that does not compute what the network computes."""


class MissingInputError(OdnError):
    """Name an input that an earlier stage has to make first."""


class OutputError(OdnError):
    """Refuse to replace what odn did not write."""


class RequestError(OdnError):
    """Refuse a request; `status` is what HTTP says of it."""

    def __init__(self, sentence: str, *, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


class TargetError(OdnError):
    """Say which targets no network meets, and by how much the best one misses."""


class StorageError(OdnError):
    """Report an object store that cannot be read or written."""


class TrackingError(OdnError):
    """Report an MLflow server that cannot be reached or refuses."""


class TrainingError(OdnError):
    """Report training that cannot go on."""


class LostError(TrainingError):
    """Report that another process of this training is gone."""
