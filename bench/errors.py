"""The base of all errors that tell the user what to do; the command line prints these as one line, anything else with its traceback."""


class SuiteError(ValueError):
    """Something about the input or the environment is wrong; the message says what, and what to do."""
