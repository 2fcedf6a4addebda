"""Command that classifies photographs with a bundle, one JSON line for each.

`python -m components.shared.serving.predict BUNDLE IMAGE...`
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    PERMANENT_EXIT_CODE,
    ConfigError,
    StreetVisionError,
    one_line,
)
from components.shared.contracts.formats import FORMATS, TRANSFORMERS
from components.shared.contracts.listing import say_json
from components.shared.contracts.outcomes import DEFER
from components.shared.contracts.regular_files import read_regular
from components.shared.contracts.step import fail
from components.shared.data.decode import ImageRejectedError, without_warnings
from components.shared.data.parallel import ordered_map
from components.shared.policies.policy import SET_SEPARATOR
from components.shared.serving.answer import answer_document
from components.shared.serving.arguments import digest
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.explained_images import Pictures
from components.shared.serving.explanation_picture import read_photograph
from components.shared.serving.forms import FormPredictor, open_predictor
from components.shared.serving.stage2 import Stage2, Stage2Answer

if TYPE_CHECKING:
    from components.shared.serving.predictor import Predictor

_PROGRAM = "python -m components.shared.serving.predict"
_EXAMPLE = """\
example:
  python -m components.shared.serving.predict bundle photo1.jpg photo2.png
  {"image": "photo1.jpg", "decision": "Roadwork", "probability": 0.913204, "threshold": 0.78374}
  {"image": "photo2.png", "error": "truncated or corrupt (...)"}

"decision" has the names of your classes. Of a binary task it is the positive class if its
calibrated "probability" exceeds "threshold", and the other class ("not X" for several others)
otherwise. Of a multiclass task it is the most probable class; "probability" is that class's, and
"probabilities" has the five largest.

A selective policy returns "defer" if it cannot guarantee the configured risk, and a policy with
sets a list of names if no single one is certain enough. A model of several views reports under
"views" how many views it used: 1 if the full image was enough to decide.

The bundle is verified first: a changed, missing or additional file is refused with exit code 42,
and so is a model that would run code or whose weights are incomplete. The sums in the bundle
protect against damage, not against somebody who changes the bundle and writes new sums: for that,
keep the content digest that the run printed (it is also the bundle's name in the registry), or
have bundles signed, and give the digest, or the public keys that you trust:
  python -m components.shared.serving.predict --digest 3f94...c0e bundle photo1.jpg
  python -m components.shared.serving.predict --trusted-keys ours.pem bundle photo1.jpg

With --stage2 the deferred images are asked of somebody else: a service, which is sent the image's
bytes by POST and answers {"decision": NAME}, or a function of your Python, module:function, which
takes the bytes and returns NAME:
  python -m components.shared.serving.predict --stage2 https://vlm.example bundle photo1.jpg
  {"image": "photo1.jpg", "decision": "Roadwork", "stage": 2, "probability": 0.41, ...}
"stage" says who decided; probabilities are stage 1's. Where stage 2 fails, the image stays "defer"
with the reason under "stage2_error", and the exit code at the end is 1.

With --form onnx the bundle's ONNX graph answers, by onnxruntime alone: the same decisions, which
the export has compared on all images of VAL_CALIB and VAL_SELECT.

With --explain the parts of the answer's margin are drawn over the photograph: a file for one image,
a folder for several:
  python -m components.shared.serving.predict --explain why.png bundle photo1.jpg
  {"image": "photo1.jpg", ..., "explanation": {"file": "why.png", "outcome": "Roadwork",
   "margin": 1.066, "patches": 1.4, "cls": -0.2, "constant": -0.134, "cls_share": 0.125}}
margin = patches + cls + constant; "cls_share" is the share of the evidence that has no place in the
picture. The parts are what the head added up. They are no proof of what is in a patch: where it was
measured, deleting the patches that speak for an answer changed it no more than others did.

An image that cannot be read gets "error" instead of a decision; the other images are still
answered, and the exit code at the end is 42. Only regular files of at most 1 GiB are read.
"""


def main(given: Sequence[str] | None = None, program: str = _PROGRAM) -> None:
    """Print one JSON line per image, in the order given.

    Args:
        given: the arguments; those of the process if None.
        program: how the command was called, for its help text.

    Raises:
        SystemExit: always; 42 if the bundle or an image was refused, 1 if stage 2 failed for an
            image, else 0.
    """
    arguments = _parser(program).parse_args(given)
    try:
        bundle = _opened(arguments)
        names, target = bundle.policy.outcomes.names, arguments.stage2
        stage2 = None if target is None else Stage2.of(target, names)
        target, images = arguments.explain, arguments.images
        if target is not None and arguments.form != TRANSFORMERS:
            raise ConfigError(f"--explain needs --form {TRANSFORMERS}")
        pictures = None if target is None else Pictures.planned(target, images, arguments.bundle)
        predictor = _predictor(bundle, arguments.form)
        failed = unanswered = False

        for start in range(0, len(images), arguments.batch_size):
            batch = images[start : start + arguments.batch_size]
            lines = _lines(predictor, batch, all_views=arguments.all_views)
            if pictures is not None:
                lines = _explained(cast("Predictor", predictor), batch, lines, pictures, start)
            for line in lines if stage2 is None else _with_stage2(stage2, batch, lines):
                failed |= "error" in line
                unanswered |= "stage2_error" in line
                say_json(line)
    except StreetVisionError as error:
        fail(error)
    except BrokenPipeError:
        _end_quietly()

    sys.exit(PERMANENT_EXIT_CODE if failed else int(unanswered))


def _opened(arguments: argparse.Namespace) -> Bundle:
    """Open the bundle; say on stderr where nobody has checked who made it."""
    bundle = open_bundle(
        arguments.bundle, arguments.digest, trusted_keys=arguments.trusted_keys or ""
    )
    bundle.warn_unchecked()
    return bundle


def _predictor(bundle: Bundle, form: str) -> FormPredictor:
    """Return what answers; transformers shows no progress of its loading."""
    if form == TRANSFORMERS:
        from transformers.utils import logging

        logging.disable_progress_bar()
    return open_predictor(bundle, form)


def _explained(
    predictor: "Predictor",
    images: Sequence[Path],
    lines: Iterator[dict[str, Any]],
    pictures: Pictures,
    first: int,
) -> Iterator[dict[str, Any]]:
    """Yield the documents of one batch with what the picture of each shows; `first` is its start.

    Images are read again: decoded photographs of a whole batch would fill the memory.
    """
    for number, (image, line) in enumerate(zip(images, lines, strict=True), start=first):
        if "error" in line:
            yield line
            continue
        try:
            data = read_regular(image)
        except OSError as error:  # gone since its answer
            yield line | {"error": error.strerror or one_line(error)}
            continue
        with without_warnings():
            pixels, photograph = predictor.pixels(data), read_photograph(data)
        explanation = predictor.explanation(pixels, line.get("views"))
        found = pictures.write(number, photograph, explanation, _in_words(line))
        yield line | {"explanation": found}


def _in_words(line: dict[str, Any]) -> str:
    """Return the image's name, the answer, and what it was compared with."""
    decision = line["decision"]
    named = decision if isinstance(decision, str) else SET_SEPARATOR.join(decision)
    limit = f", threshold {line['threshold']:.3f}" if "threshold" in line else ""
    return f"{Path(line['image']).name}: {named} (probability {line['probability']:.3f}{limit})"


def _with_stage2(
    stage2: Stage2, images: Sequence[Path], lines: Iterator[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the documents of one batch, the deferred ones with the answers of stage 2."""

    def answered(entry: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
        image, line = entry
        if "error" in line:
            return line
        if line["decision"] != DEFER:
            return line | {"stage": 1}
        try:
            found = stage2.answer(read_regular(image))
        except OSError as error:  # gone since stage 1 read it
            found = Stage2Answer(error=error.strerror or one_line(error))
        if found.decision is None:
            return line | {"stage": 1, "stage2_error": found.error}
        return line | {"decision": found.decision, "stage": 2}

    return ordered_map(answered, zip(images, lines, strict=True), n_workers=stage2.n_at_once)


def _end_quietly() -> NoReturn:
    """End as a program does whose reader (`head`) has gone: nothing is left to be said to it."""
    # Python writes what is buffered when it ends, and would complain then.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _lines(
    predictor: FormPredictor, images: list[Path], *, all_views: bool
) -> Iterator[dict[str, Any]]:
    """Yield the documents of one batch, in order.

    Unreadable images get an error and are left out of the batch.
    """
    pixels, errors = [], {}
    with without_warnings():
        for position, image in enumerate(images):
            try:
                pixels.append(predictor.pixels(read_regular(image)))
            except ImageRejectedError as error:
                errors[position] = one_line(error)
            except OSError as error:
                errors[position] = error.strerror or one_line(error)
            except MemoryError:
                errors[position] = "not enough memory to decode it"

    answers = iter(predictor.answers(np.stack(pixels), all_views=all_views) if pixels else [])

    for position, image in enumerate(images):
        line: dict[str, Any] = {"image": str(image)}
        if position in errors:
            yield line | {"error": errors[position]}
        else:
            yield line | answer_document(next(answers))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Answer from a bundle, one JSON line per image.",
        epilog=_EXAMPLE.replace(_PROGRAM, program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="the bundle directory a run printed"
    )
    parser.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="BMP, GIF, JPEG, PBM, PGM, PNG, PPM, TIFF or WebP",
    )
    parser.add_argument(
        "--batch-size",
        type=_positive,
        default=16,
        metavar="N",
        help="images at a time (default: 16)",
    )

    parser.add_argument(
        "--form",
        choices=FORMATS,
        default=TRANSFORMERS,
        help="which form of the model computes; the onnx forms need no torch (default:"
        f" {TRANSFORMERS})",
    )

    parser.add_argument(
        "--digest",
        type=digest,
        metavar="HEX",
        help="refuse a bundle with another content digest: 64 hex digits, which the run printed",
    )

    parser.add_argument(
        "--trusted-keys",
        type=Path,
        metavar="FILE",
        help="PEM file with public keys and certificates of authorities, one of which must have"
        f" signed the bundle (default: that of {Variable.TRUSTED_KEYS})",
    )

    parser.add_argument(
        "--stage2",
        metavar="URL|MODULE:FUNCTION",
        help="who answers what the policy defers: a service, or a function of your Python",
    )

    parser.add_argument(
        "--explain",
        type=Path,
        metavar="PNG|FOLDER",
        help="draw which patches spoke for the answer: a picture, or a folder for several images",
    )

    parser.add_argument(
        "--all-views",
        action="store_true",
        help="look at all views of every image, where several are",
    )

    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    main()
