"""`python -m pipelines`: see pipelines/cli/app.py."""

from pipelines.cli.app import main

if __name__ == "__main__":
    main()
