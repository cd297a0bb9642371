"""What a run asks of the hub: all that is missing is named at once, what may pass is waited out."""

from types import SimpleNamespace
from typing import ClassVar

import httpx2
import pytest

from distillery.core import hub
from distillery.core.errors import ConfigError
from distillery.core.files import write_json
from distillery.core.hub import Named, check, patiently
from distillery.core.model_locks import Lock

REQUEST = httpx2.Request("GET", "http://hub/x")


def refused(status: int, **headers: str) -> httpx2.HTTPStatusError:
    return httpx2.HTTPStatusError(
        "refused", request=REQUEST, response=httpx2.Response(status, headers=headers, request=REQUEST)
    )


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.fixture
def pauses(monkeypatch):
    """How long the hub's client slept; other threads of the tests sleep as ever."""
    slept: list[float] = []
    monkeypatch.setattr(hub, "time", SimpleNamespace(sleep=slept.append))
    return slept


@pytest.mark.parametrize(
    ("errors", "waited"),
    [
        ([], []),
        ([refused(429), refused(503), refused(500)], [1, 4, 15]),
        ([refused(429, **{"Retry-After": "7"}), httpx2.ConnectError("gone"), httpx2.ReadTimeout("slow")], [7.0, 4, 15]),
        ([ConnectionResetError(), TimeoutError()], [1, 4]),
        ([caused(ValueError("not in the cache"), refused(429, **{"Retry-After": "3"}))], [3.0]),
        ([caused(ValueError("not in the cache"), ConnectionResetError())], [1]),
    ],
)
def test_what_may_pass_is_waited_out(pauses, errors, waited):
    left = list(errors)

    def ask() -> str:
        if left:
            raise left.pop(0)
        return "done"

    assert patiently(ask) == "done" and pauses == waited


@pytest.mark.parametrize(
    ("error", "waited"),
    [(refused(404), 0), (refused(403), 0), (ValueError(), 0), (caused(ValueError(), refused(404)), 0), (refused(502), 5)],
)
def test_what_will_not_pass_is_an_error(pauses, error, waited):
    def ask() -> str:
        raise error

    with pytest.raises(type(error)):
        patiently(ask)
    assert len(pauses) == waited


class Api:
    """Repositories by name: the files, or the error that asking for them ends in."""

    said: ClassVar[dict[str, list[str] | Exception]] = {}

    def repo_info(self, name: str, repo_type: str, revision: str | None):
        found = self.said[name]
        if isinstance(found, Exception):
            raise found
        return SimpleNamespace(sha="c" * 40, siblings=[SimpleNamespace(rfilename=file) for file in found])


def test_all_that_cannot_be_had_is_listed_with_what_to_do(monkeypatch, pauses):
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    response = httpx2.Response(403, request=REQUEST)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asked: list[str] = []

    def metadata(url: str) -> None:
        asked.append(url)
        if "gated" in url:
            raise GatedRepoError("gated", response=response)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", metadata)
    monkeypatch.setattr(
        Api,
        "said",
        {
            "o/open": ["b", "a"],
            "o/gated": ["a"],
            "o/none": refused(401),
            "o/old": RevisionNotFoundError("no", response=response),
            "o/down": refused(503),
            "o/empty": [],
        },
    )
    names = [Named(f"k.{name}", "model", f"o/{name}", "v1") for name in ("open", "gated", "none", "old", "down", "empty")]
    with pytest.raises(ConfigError) as error:
        check(names)
    lines = str(error.value).splitlines()
    assert [line.split(": ", 3)[1:3] for line in lines] == [[f"k.{n}", f"o/{n}"] for n in ("gated", "none", "old", "down")]
    for line, words in zip(
        lines, ("accept its terms", "check its spelling", "no revision 'v1'", "does not answer"), strict=True
    ):
        assert words in line
    assert sorted(url.split("/resolve/")[1] for url in asked) == [f"{'c' * 40}/a"] * 2
    check(names[:1])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check(names)


def test_each_locked_model_is_downloaded_once_and_only_what_the_lock_names(inside, monkeypatch, capsys):
    with pytest.raises(ConfigError, match="nothing is locked yet; run `dvc repro assets assets_teacher`"):
        hub.locked()
    files = {"model.safetensors": "w", "config.json": "c"}
    for role, name, local in (("judge", "o/m", False), ("scorer", "o/m", False), ("base", "folder", True)):
        write_json(vars(Lock(role, name, "r" * 40, local, files)), f"models/locks/roles/{role}.json")
    write_json(None, "models/locks/roles/reward.json")
    write_json(vars(Lock("teachers/t", "o/traces", "r" * 40, False, {})), "models/locks/teachers/t.json")
    fetched = []

    def download(name: str, **how: object) -> str:
        fetched.append((name, how))
        return "there"

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    hub.main()
    assert fetched == [("o/m", {"revision": "r" * 40, "allow_patterns": ["config.json", "model.safetensors"]})]
    assert "fetch: 1/1 o/m@rrrrrrrr: 2 files in there" in capsys.readouterr().out


def test_a_path_that_is_not_there_is_called_so(monkeypatch):
    """The hub's own client refuses it as an id, without asking anybody."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ConfigError, match=r"params.yaml: assets.base: mine/models/lefft: no such folder or file here"):
        check([Named("assets.base", "model", "mine/models/lefft", None)])
