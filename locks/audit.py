"""Known vulnerabilities of all pins: `make audit`.

pip-audit asks the advisory services for the pins of constraints.txt. Where none of them can be
reached, the audit is skipped and says so. ARGS holds further options of pip-audit, such as
`--osv-url URL` for a copy of the advisories, or `--ignore-vuln ID`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("osv", "pypi")


class NoAdvisoriesError(Exception):
    """A service that cannot be reached, or that knows nothing about any of the packages."""


def audit(requirements: Path, service: str, *options: str) -> list[dict[str, Any]]:
    """Return what a service says about each pinned requirement, as pip-audit reports it.

    Raises NoAdvisoriesError with the reason.
    """
    program = str(Path(sys.executable).with_name("pip-audit"))
    command = [program, "--requirement", str(requirements), "--no-deps", "--disable-pip"]
    command += ["--vulnerability-service", service, "--progress-spinner", "off"]
    done = subprocess.run(
        [*command, "--format", "json", *options], capture_output=True, text=True, check=False
    )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        last = (done.stderr.strip() or "no answer").splitlines()[-1]
        raise NoAdvisoriesError(last[:300]) from None

    if all("skip_reason" in package for package in found):
        raise NoAdvisoriesError("it knows none of the packages")

    return found


def main(*options: str) -> int:
    """Print the findings of the first service that answers; return 1 if there are any."""
    for service in SERVICES:
        try:
            # Two packages tell whether the service is there, before it is asked about all.
            audit(ROOT / "locks/installer.txt", service, *options)
            found = audit(ROOT / "constraints.txt", service, *options)
        except NoAdvisoriesError as error:
            print(f"audit: no advisories from {service}: {error}")
            continue
        return _report(found, service)

    print("audit: SKIPPED, no advisory service can be reached; no pin was looked up")
    return 0


def _report(found: list[dict[str, Any]], service: str) -> int:
    vulnerable = [package for package in found if package.get("vulns")]
    for package in vulnerable:
        for advisory in package["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            print(f"{package['name']}=={package['version']}: {advisory['id']}, fixed in {fixed}")

    unknown = [package["name"] for package in found if "skip_reason" in package]
    print(
        f"audit: {len(found) - len(unknown)} pins looked up ({service}), {len(vulnerable)}"
        f" with known vulnerabilities, {len(unknown)} unknown to the service"
    )

    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
