"""Lists in messages."""

from components.shared.contracts.listing import first_of


def test_the_first_entries_are_named_and_the_others_counted() -> None:
    assert first_of([]) == ""
    assert first_of(range(20)) == ", ".join(map(str, range(20)))
    assert first_of(range(21)).endswith("18, 19 and 1 more")
    assert first_of((name for name in "abcd"), most=2, separator="; ") == "a; b and 2 more"
    assert len(first_of(["photo.jpg: empty file"] * 100_000)) < 600
