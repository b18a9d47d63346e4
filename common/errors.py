"""The one base of all errors that are the user's to mend."""


class UserError(ValueError):
    """The message is one line that names the value and the fix; the command line prints it and exits with code 2."""
