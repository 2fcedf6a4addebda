"""Arguments that several commands which open a bundle share."""

import argparse
import re


def digest(text: str) -> str:
    """Return a content digest in lower case. Raises argparse.ArgumentTypeError."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be 64 hex digits")
    return text.lower()
