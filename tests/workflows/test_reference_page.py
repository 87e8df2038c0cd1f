"""The page that lists every key of a compose file."""

from __future__ import annotations

from pathlib import Path

from modelcompose.workflows.reference_page import TITLES, page
from modelcompose.workflows.schema import Form

PAGE = Path(__file__).parents[2] / "docs" / "compose-file.md"


def forms(of: type[Form] = Form) -> list[type[Form]]:
    return [each for form in of.__subclasses__() for each in (form, *forms(form))]


def test_the_page_is_that_of_the_schema() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python -m modelcompose.workflows.reference_page > docs/compose-file.md"
    )


def test_every_key_has_a_description() -> None:
    bare = [
        f"{form.__name__}.{key}" for form in TITLES for key, field in form.model_fields.items() if not field.description
    ]
    assert bare == []


def test_every_form_is_on_the_page() -> None:
    assert {form for form in forms() if not form.__subclasses__()} - TITLES.keys() == set()
