"""Predictions of a bundle's ONNX form, with onnxruntime and numpy alone.

The graph holds preprocessing, model, calibrator and policy. What remains is the choice of the
graph: of a model of several views the first one sees the full image, and the second one the tiles
of the images for which that is not enough.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from components.shared.calibration.calibrator import class_log_odds
from components.shared.contracts.errors import ArtifactError, PermanentError, one_line
from components.shared.contracts.formats import ONNX
from components.shared.contracts.listing import printable, warn
from components.shared.contracts.machine import n_usable_cores
from components.shared.data.decode import decode, resize
from components.shared.serving.answer import Answer, answer_of
from components.shared.serving.bundle import Bundle
from components.shared.serving.formats.onnx_format import MODEL, TILES, read_format
from components.shared.serving.formats.session import cpu_session
from components.shared.stats.metrics import Bools, Integers
from components.shared.vision.reference_image import reference_image

_Arrays = dict[str, npt.NDArray[Any]]
# Largest difference of a logit, relative where it exceeds 1, as for the bundle's own model.
_TOLERANCE = 1e-3


class OnnxOutputs(NamedTuple):
    """Outputs of the graphs for N images, K outcomes and C classes.

    Attributes:
        logits: (N, C) float32 before calibration, in the order of the policy's classes.
        margin: (N,) float32 calibrated log-odds: of the positive class; of a multiclass task, of
            the most probable class against all others.
        probabilities: (N, K) float32, calibrated.
        decision: (N,) int64 codes, as format.json names them.
        members: (N, K) bool, the outcomes that an answer names.
        gate: (N,) float32 raw gate scores; None without a gate.
        views: (N,) int64 number of views that were used; None for a model of one.
    """

    logits: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    decision: Integers
    members: Bools
    gate: npt.NDArray[np.float32] | None
    views: Integers | None


class OnnxPredictor:
    """The ONNX form of a bundle on the CPU; threads may share it."""

    def __init__(self, bundle: Bundle, form: str = ONNX, *, threads: int | None = None) -> None:
        """Load the graphs.

        Args:
            bundle: The bundle.
            form: Its folder.
            threads: Of one operator; None: the cores that this process may use.

        Raises:
            ArtifactError: The bundle has no such form, onnxruntime refuses it, or its float graph
                computes other logits of the reference image than at the export.
        """
        folder = bundle.path / form
        if form not in bundle.forms:
            reason = bundle.refused_formats.get(form)
            remedy = f"export it with formats that have {form}"
            raise ArtifactError(
                f"{bundle.name or bundle.path}: has no {form}/;"
                f" {remedy if reason is None else f'the export refused it: {printable(reason)}'}"
            )

        self._bundle, self.form = bundle, form
        self.policy = bundle.policy_of(form)
        self.format = read_format(folder, self.policy.outcomes, bundle.place(form))
        self._n_views = 1 if bundle.spec.views is None else bundle.spec.views.count
        self._threads = n_usable_cores() if threads is None else threads
        self._model = self._session(MODEL)
        self._tiles = self._session(TILES) if self.format.has_tiles else None
        self._check_reference()

    def pixels(self, data: bytes) -> npt.NDArray[np.uint8]:
        """(S, S, 3) uint8 of an encoded image of any supported format, whatever its file is called.

        Raises ImageRejectedError where it cannot be decoded.
        """
        return resize(decode(data), self.format.image_size)

    def answers(self, pixels: npt.NDArray[np.uint8], *, all_views: bool = False) -> list[Answer]:
        """Return one answer per image of (B, S, S, 3) uint8.

        Of several views no more are computed than needed, unless `all_views`. Raises PermanentError
        where the model's output is not finite.
        """
        found = self.outputs(pixels, all_views=all_views)
        defers = found.decision == len(self.policy.outcomes.names)
        views = [None] * len(pixels) if found.views is None else found.views.tolist()
        return [
            answer_of(self.policy, None if deferred else members, probabilities, n_views)
            for deferred, members, probabilities, n_views in zip(
                defers, found.members, found.probabilities, views, strict=True
            )
        ]

    def outputs(self, pixels: npt.NDArray[np.uint8], *, all_views: bool = False) -> OnnxOutputs:
        """Return the graphs' outputs for (B, S, S, 3) uint8; arguments and errors as `answers`."""
        found = self._run(self._model, {"images": pixels})
        if self._tiles is None:
            return self._outputs(found)

        rest = np.arange(len(pixels))
        if self.format.early_exit is not None and not all_views:
            # Of one view, every aggregation gives that view's margin.
            positive = self.policy.outcomes.positive_index
            margins = class_log_odds(found["logits"].astype(np.float64), positive)
            rest = np.flatnonzero(~self.format.early_exit.exits(margins))

        views = np.ones(len(pixels), dtype=np.int64)
        if len(rest):
            given = {"images": pixels[rest], "features": found["features"][rest]}
            for name, values in self._run(self._tiles, given).items():
                found[name][rest] = values
            views[rest] = self._n_views

        return self._outputs(found, views)

    def outputs_by_stage(self, pixels: npt.NDArray[np.uint8]) -> list[OnnxOutputs]:
        """Return the outputs of each graph for all of (B, S, S, 3) uint8, in order.

        Raises PermanentError where the model's output is not finite.
        """
        found = self.raw_outputs(pixels)
        if self._tiles is None:
            return [self._outputs(outputs) for outputs in found]

        ones = np.ones(len(pixels), dtype=np.int64)
        counts = (ones, ones * self._n_views)
        return [self._outputs(*stage) for stage in zip(found, counts, strict=True)]

    def raw_outputs(self, pixels: npt.NDArray[np.uint8]) -> list[dict[str, npt.NDArray[Any]]]:
        """Return what each graph gives for all of (B, S, S, 3) uint8, by the outputs' names.

        Raises PermanentError where the model's output is not finite.
        """
        found = [self._run(self._model, {"images": pixels})]
        if self._tiles is not None:
            given = {"images": pixels, "features": found[0]["features"]}
            found.append(self._run(self._tiles, given))
        return found

    def _check_reference(self) -> None:
        """Compare the logits of the reference image with those of the export.

        Another order of float sums can move an activation to the next of 256 steps, so that another
        processor computes INT8 logits that differ by some of the quantisation's own error. What the
        certificate then counts are the logits of the exporting machine, which a line says.

        Raises ArtifactError for the float graph.
        """
        of_model, own = self._bundle.reference_logits, self.format.reference_logits
        expected = np.array(own or (of_model if self.form == ONNX else None) or [], np.float64)
        if not expected.size:
            return

        pixels = reference_image(self.format.image_size)
        found = self.raw_outputs(pixels)[-1]["logits"][0].astype(np.float64)
        where = self._bundle.place(self.form)
        if found.shape != expected.shape:
            raise ArtifactError(
                f"{where}: has {len(found)} logits, the recorded reference {len(expected)}; the"
                " form belongs to another bundle"
            )
        difference = float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())
        if difference <= _TOLERANCE:
            return

        versions = self._bundle.version_differences()
        problem = (
            f"{where}: the logits of the reference image differ by {difference:.3g} from those at"
            f" the export{f' (other versions: {versions})' if versions else ''}"
        )
        if not own:
            raise ArtifactError(problem)
        warn(
            f"{problem}; policy and certificate are of the logits at the export. Export on such a"
            " machine to have them of its logits"
        )

    def _outputs(self, found: _Arrays, views: Integers | None = None) -> OnnxOutputs:
        """Return the arrays of a run, with those that the graph of a binary task leaves out."""
        decision, n_outcomes = found["decision"], len(self.policy.outcomes.names)
        probabilities, members = found.get("probabilities"), found.get("members")
        if probabilities is None:
            positive = found["probability"]
            probabilities = np.column_stack([1 - positive, positive])
        if members is None:
            several = decision == n_outcomes + 1
            members = several[:, None] | (decision[:, None] == np.arange(n_outcomes))
        return OnnxOutputs(
            found["logits"],
            found["margin"],
            probabilities,
            decision,
            members,
            found.get("gate"),
            views,
        )

    def _run(self, session: onnxruntime.InferenceSession, given: _Arrays) -> _Arrays:
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, given), strict=True))
        if not np.isfinite(found["margin"]).all():
            raise PermanentError(
                f"{self._bundle.place(self.form)}: the output is not finite; the weights are"
                " damaged"
            )
        return found

    def _session(self, graph: str) -> onnxruntime.InferenceSession:
        try:
            return cpu_session(self._bundle.path / self.form / graph, self._threads)
        except Exception as error:  # onnxruntime's own classes have no common base
            raise ArtifactError(
                f"{self._bundle.place(self.form)}/{graph}: onnxruntime refuses it"
                f" ({one_line(error)})"
            ) from error
