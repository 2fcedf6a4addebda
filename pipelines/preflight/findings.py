"""What was found before a run: reasons to refuse it, and remarks."""

import sys
from dataclasses import dataclass, field

from components.shared.contracts.errors import PERMANENT_EXIT_CODE


@dataclass
class Preflight:
    """Lines for the user. refusals: the run would fail; remarks: it may run all the same."""

    refusals: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, other: "Preflight") -> None:
        """Take over what another look has found."""
        self.refusals += other.refusals
        self.remarks += other.remarks

    def report(self) -> None:
        """Print the lines; ends the process with exit code 42 where there are refusals."""
        for remark in self.remarks:
            print(f"note: {remark}", flush=True)
        for refusal in self.refusals:
            print(f"error: {refusal}", file=sys.stderr)
        if self.refusals:
            sys.exit(PERMANENT_EXIT_CODE)
