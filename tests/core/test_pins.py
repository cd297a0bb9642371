"""A revision keeps the commit that it meant when it was first asked for."""

import pytest

from distillery.core.errors import ConfigError
from distillery.core.files import read_json
from distillery.core.pins import DATA, MODEL, PINS, main, pin

OLD, NEW = "a" * 40, "b" * 40


def test_a_moved_branch_moves_nothing(inside):
    assert pin(MODEL, "o/m", None, lambda: OLD) == OLD
    assert pin(MODEL, "o/m", "main", lambda: NEW) == OLD == pin(MODEL, "o/m", None, lambda: NEW)
    assert pin(MODEL, "o/m", "v2", lambda: NEW) == NEW, "another revision is another pin"
    assert pin(DATA, "o/m", None, lambda: NEW) == NEW, "so is a data set of the same name"
    assert read_json(PINS) == {"dataset o/m@main": NEW, "model o/m@main": OLD, "model o/m@v2": NEW}


def test_a_commit_needs_no_pin(inside):
    assert pin(MODEL, "o/m", OLD, lambda: NEW) == OLD and not PINS.exists()


def test_what_cannot_be_resolved_pins_nothing(inside):
    with pytest.raises(ZeroDivisionError):
        pin(MODEL, "o/m", None, lambda: str(1 / 0))
    assert not PINS.exists()


def test_pins_are_listed_and_moved_by_id(inside, capsys):
    main()
    pin(MODEL, "o/m", None, lambda: OLD)
    pin(MODEL, "o/m", "v2", lambda: OLD)
    pin(MODEL, "o/mm", None, lambda: OLD)
    main()
    main("--move", "o/m")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "pins.json: no pins" and f"model o/m@main  {OLD}" in said
    assert said[-1].startswith("2 pins of o/m forgotten")
    assert pin(MODEL, "o/m", None, lambda: NEW) == NEW and pin(MODEL, "o/mm", None, lambda: NEW) == OLD
    with pytest.raises(SystemExit, match="usage"):
        main("--what")


def test_an_id_without_a_pin_is_named_and_nothing_is_written(inside):
    with pytest.raises(ConfigError, match="no pin of 'o/other'"):
        main("--move", "o/other")
    assert not (inside / "pins.json").exists()
