"""The two ways a run ends early: an error that the user can correct, and an interruption that can be resumed.

Either is one sentence on stderr; the command line turns them into the exit statuses below.
"""

FAILED, BAD_COMMAND_LINE, INTERRUPTED = 1, 2, 75


class UserError(Exception):
    """A sentence that names the flag or file, the value and the way out."""

    status = FAILED


class UntrustedFile(UserError):
    """A file names a Python file that would be run, and nobody has said that it may."""

    def __init__(self, sentence: str, path: str) -> None:
        super().__init__(sentence)
        self.path = path


class UsageError(UserError):
    """A `UserError` about the command line itself: unknown flags, names and values."""

    status = BAD_COMMAND_LINE


class Interrupted(UserError):
    """The run was stopped from outside and has saved what the same command needs to continue."""

    status = INTERRUPTED
