"""Process of torchrun, which records the failures of its ranks for the launcher.

python -m components.shared.training.launch.agent <arguments of torch.distributed.run>
"""

import os
import sys
from pathlib import Path

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.environment import Variable
from components.shared.contracts.redaction import redact_output
from components.shared.training.launch.failures import AGENT_FILE


def main() -> None:
    """Run torchrun and record which ranks failed, in the order of their failures.

    The launcher reads {"failures": [{"rank": int, "exit_code": int}]}.
    """
    redact_output()
    os.environ[Variable.PARENT] = str(os.getpid())
    try:
        run.main()
    except ChildFailedError as error:
        failures = [
            {"rank": rank, "exit_code": failure.exitcode}
            for rank, failure in sorted(
                error.failures.items(), key=lambda item: (item[1].timestamp, item[0])
            )
        ]

        write_json(Path(os.environ[Variable.REPORTS]) / AGENT_FILE, {"failures": failures})
        sys.exit(1)


if __name__ == "__main__":
    main()
