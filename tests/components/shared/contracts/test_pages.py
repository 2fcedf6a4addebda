"""Templates of pages escape values, and refuse what is missing."""

import jinja2
import pytest

from components.shared.contracts.pages import templates


def test_values_are_escaped_and_missing_ones_are_an_error() -> None:
    environment = templates("components.evaluate.report.templates")
    assert "report.html.jinja" in environment.list_templates()
    template = environment.from_string("{{ name }}")
    assert template.render(name="<b>") == "&lt;b&gt;"
    with pytest.raises(jinja2.UndefinedError):
        template.render()
