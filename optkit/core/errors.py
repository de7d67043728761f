"""What can go wrong for a user, with the exit status each kind ends in.

Every message names the object, what was found, what was expected, and the fix.
"""


class OptkitError(Exception):
    """Base of every error that optkit raises on purpose; the command line prints it without a traceback."""

    exit_status = 1


class GateError(OptkitError):
    """A candidate failed its gate."""

    exit_status = 1


class InputError(OptkitError):
    """Error in what the user gave: a file, a setting, a name."""

    exit_status = 2


class MachineError(OptkitError):
    """The machine lacks something: a package, a device, disk space, a free port."""

    exit_status = 3
