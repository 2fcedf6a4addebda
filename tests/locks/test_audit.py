"""The audit says what was looked up, and never that nothing was found where nothing was asked.

pip-audit is a program beside the interpreter that answers in the form of pip-audit 2.10.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from locks import audit

CLEAN = {"name": "pip", "version": "26.3", "vulns": []}
VULNERABLE = {
    "name": "parcel",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}],
}
SKIPPED = {
    "name": "parcel",
    "skip_reason": "Dependency not found on PyPI and could not be audited: parcel (1.0)",
}

Tell = Callable[..., None]


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Sets what pip-audit answers for each service; a text is the error that it ends with."""
    program, table = tmp_path / "pip-audit", tmp_path / "answers.json"
    program.write_text(
        f"#!{os.path.realpath(sys.executable)} -IS\nimport json, sys\n"
        f"answers = json.load(open({str(table)!r}))\n"
        "answer = answers[sys.argv[sys.argv.index('--vulnerability-service') + 1]]\n"
        "if isinstance(answer, str):\n    sys.exit(answer)\n"
        "print(json.dumps({'dependencies': answer, 'fixes': []}))\n"
        "sys.exit(any(package.get('vulns') for package in answer))\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return lambda **answers: table.write_text(json.dumps(answers))


def test_findings_are_named_with_the_version_that_mends_them(
    tell: Tell, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(osv=[CLEAN, VULNERABLE, SKIPPED])
    assert audit.main() == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first == "parcel==1.0: PYSEC-2026-1, fixed in 1.1"
    assert last == (
        "audit: 2 pins looked up (osv), 1 with known vulnerabilities, 1 unknown to the service"
    )


def test_nothing_found_is_said_of_what_was_looked_up(
    tell: Tell, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(osv="ConnectionError: Failed to resolve", pypi=[CLEAN])
    assert audit.main() == 0
    printed = capsys.readouterr().out
    assert "no advisories from osv: ConnectionError: Failed to resolve" in printed
    assert "1 pins looked up (pypi), 0 with known vulnerabilities" in printed


def test_without_advisories_the_audit_says_that_it_was_skipped(
    tell: Tell, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(osv="ConnectionError", pypi=[SKIPPED])
    assert audit.main() == 0
    printed = capsys.readouterr().out
    assert "no advisories from pypi: it knows none of the packages" in printed
    assert "SKIPPED" in printed.splitlines()[-1]
