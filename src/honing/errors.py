"""What honing raises when the fault is not its own. The command line prints one line for each."""

from __future__ import annotations

from honing.terminal import one_line


class HoningError(Exception):
    """Base of the errors that are shown as one line, without a traceback. Names and words from
    files, which anyone may have written, steer no terminal."""

    exit_status = 1

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class UserError(HoningError):
    """Something that the user can mend. Says where, what was found, what to do."""

    exit_status = 2


class TrainingDiverged(HoningError):
    """The loss or a gradient stopped being a finite number; the last good checkpoint stands."""


class CheckFailed(HoningError):
    """A check of honing's own found that a result cannot be trusted."""
