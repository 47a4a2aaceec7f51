"""The base of all errors that a user can mend."""


class ProjectError(Exception):
    """The message names what was wrong and what to do; the command line prints it as it is."""
