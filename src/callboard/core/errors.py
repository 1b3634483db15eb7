"""The one error that is the user's to mend: shown as a sentence, without a traceback."""


class UserError(ValueError):
    """Something outside the code is wrong: a parameter, a table, a recording.

    The message says which thing, what it was and what it should be. Stages and the command line print it
    and exit with status 1; any other exception is a fault of ours and keeps its traceback.
    """


def one_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
