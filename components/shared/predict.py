"""Does this photograph show roadwork? `python -m components.shared.predict BUNDLE IMAGE...` answers from a bundle."""

import argparse
import json
import sys
from pathlib import Path

from components.shared.data.decode import ImageRejectedError
from components.shared.errors import PERMANENT_EXIT_CODE, StreetVisionError
from components.shared.step import fail


def main() -> None:
    """Print one JSON line per image; exit code 42 where an image or the bundle was unusable."""
    parser = argparse.ArgumentParser(
        prog="python -m components.shared.predict",
        description="Answer from a bundle, which is verified first. One JSON line per image; an unusable image gets a "
        'line with "error", the others are still answered, and the exit code is 42.',
        epilog="example: python -m components.shared.predict runs/.../bundle photo1.jpg photo2.png",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle directory a run printed")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="JPEG, PNG, WebP, BMP, TIFF or GIF")
    arguments = parser.parse_args()
    from components.shared.bundle import Predictor

    try:
        predictor = Predictor(arguments.bundle)
    except StreetVisionError as error:
        fail(error)
    failed = False
    for image in arguments.images:
        line: dict[str, object] = {"image": str(image)}
        try:
            answer = predictor(image.read_bytes(), image.name)
            line |= {"decision": answer.decision, "probability": round(answer.probability, 6)}
        except (ImageRejectedError, OSError) as error:
            failed = True
            line["error"] = str(error)
        print(json.dumps(line), flush=True)
    sys.exit(PERMANENT_EXIT_CODE if failed else 0)


if __name__ == "__main__":
    main()
