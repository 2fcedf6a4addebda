"""`python -m pipelines`: see pipelines/cli.py."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
