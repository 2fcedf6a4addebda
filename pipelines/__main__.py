"""`python -m pipelines`: see pipelines/cli/app.py."""

import signal

if __name__ == "__main__":
    # Until the command handles it, Ctrl-C ends the imports without their traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from pipelines.cli.app import main

if __name__ == "__main__":
    main()
