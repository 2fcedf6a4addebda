"""Exit codes of the command line that no error has; those of errors stand in contracts.errors."""

USAGE = 2  # an unknown verb or option, or a value of the wrong type
CANCELLED = 2  # of `wait` and `submit --wait`: the run was cancelled
REFUSED = 3  # of `promote`: the bundle is not better than the champion, or a guard refuses
DRIFTED = 3  # of `drift`: new images differ from the reference
STILL_RUNNING = 124  # of the same: --timeout has passed, as `timeout` has it
INTERRUPTED, CLOSED = 130, 141  # as a shell reports SIGINT and SIGPIPE
