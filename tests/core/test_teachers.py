import pytest

from distillery.core.errors import ConfigError, DataError
from distillery.core.teachers import keep_only, teacher_names


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["deepseek-r1", "Qwen3_235B", "3"]])
def test_any_number_of_teachers(inside, names):
    (inside / "params.yaml").write_text(f"teachers: {names}\n")
    assert teacher_names() == names


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("[]", "params.yaml: teachers: empty; name at least one"),
        ("[a, b, a]", "params.yaml: teachers: duplicate teacher 'a'"),
        ("[a, base]", "params.yaml: teachers: 'base' cannot be a name"),
        ("[a/b]", "params.yaml: teachers: 'a/b' cannot be a name"),
        ("['']", "params.yaml: teachers: '' cannot be a name"),
        ("a", "params.yaml: teachers: Input should be a valid array"),
    ],
)
def test_invalid_names_give_a_one_line_error(inside, names, line):
    (inside / "params.yaml").write_text(f"teachers: {names}\n")
    with pytest.raises(ConfigError) as error:
        teacher_names()
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_outputs_of_removed_teachers_are_deleted(tmp_path):
    for name in ("a", "b", "gone"):
        (tmp_path / "curated" / name).mkdir(parents=True)
        (tmp_path / "curated" / name / "part").touch()
    (tmp_path / "curated/.gitignore").touch()
    (tmp_path / "curated/stray").touch()
    keep_only(tmp_path / "curated", ["a", "b"])
    assert {path.name for path in (tmp_path / "curated").iterdir()} == {"a", "b", ".gitignore"}


def test_a_missing_entry_is_named_and_nothing_is_deleted(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/gone.json").touch()
    with pytest.raises(DataError, match=r"m/a.json: missing; run `dvc pull`, or `dvc repro` to make it"):
        keep_only(tmp_path / "m", ["a"], ".json")
    assert (tmp_path / "m/gone.json").exists()
    with pytest.raises(DataError, match=r"nothing/a: missing"):
        keep_only(tmp_path / "nothing", ["a"])
