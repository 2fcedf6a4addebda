"""The server as a program: `python -m components.shared.serving.server BUNDLE`."""

from components.shared.serving.server.command import main

if __name__ == "__main__":
    main()
