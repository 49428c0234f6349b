"""``windlass keys`` and ``windlass usage``: on the state folder, without a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rig.api_daemon import api_daemon
from rig.command_line import windlass

STATE = "--state"


@pytest.fixture
def state(tmp_path: Path) -> str:
    return str(tmp_path / "state")


async def test_a_key_is_printed_once_and_listed_without_itself(state: str) -> None:
    made = await windlass(
        "keys", "create", "ada", "--deployment", "wine", "--rate", "5", STATE, state
    )
    assert made.code == 0
    key = made.out.strip()
    assert key.startswith("wl_")
    listed = (await windlass("keys", "list", STATE, state)).out
    assert listed.splitlines()[1].split() == ["ada", "default", "wine", "5/s", "always"]
    as_json = json.loads((await windlass("keys", "list", "--json", STATE, state)).out)
    assert as_json["keys"][0]["name"] == "ada"
    assert key not in listed + json.dumps(as_json)


async def test_rotation_and_revocation(state: str) -> None:
    first = (await windlass("keys", "create", "ada", STATE, state)).out
    second = (await windlass("keys", "rotate", "ada", "--overlap", "10m", STATE, state)).out
    assert first != second
    rows = [
        line.split() for line in (await windlass("keys", "list", STATE, state)).out.splitlines()
    ]
    assert [row[0] for row in rows[1:]] == ["ada", "ada"]
    assert rows[2][-1] == "always"
    assert (await windlass("keys", "revoke", "ada", STATE, state)).code == 0
    assert len((await windlass("keys", "list", STATE, state)).out.splitlines()) == 1


async def test_a_name_that_is_taken_or_unknown_is_said_with_what_to_do(state: str) -> None:
    await windlass("keys", "create", "ada", STATE, state)
    again = await windlass("keys", "create", "ada", STATE, state)
    assert again.code == 1
    assert "hint: windlass keys rotate ada" in again.err
    for command in ("rotate", "revoke"):
        unknown = await windlass("keys", command, "eve", STATE, state)
        assert unknown.code == 1
        assert "there is no key eve; there are: ada" in unknown.err


async def test_usage_adds_up_all_targets_with_the_most_used_first(
    state: str, tmp_path: Path
) -> None:
    entries = [("wine", "ada", 3, 1), ("wine", "", 10, 0)]
    for target in ("local", "other"):
        folder = tmp_path / "state/targets/default" / target / "serving"
        folder.mkdir(parents=True)
        usage = [
            {"deployment": d, "key": k, "ok": ok, "refused": refused}
            for d, k, ok, refused in entries
        ]
        (folder / "usage.json").write_text(json.dumps({"usage": usage}))
    said = (await windlass("usage", STATE, state)).out
    assert [line.split() for line in said.splitlines()[1:]] == [
        ["wine", "none", "20", "0"],
        ["wine", "ada", "6", "2"],
    ]
    found = json.loads((await windlass("usage", "--json", STATE, state)).out)
    assert found["usage"][1] == {"deployment": "wine", "key": "ada", "ok": 6, "refused": 2}


async def test_where_no_state_folder_is_here_it_is_that_of_the_daemon_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key in a folder that no daemon reads would open nothing, and nobody would know why."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with api_daemon(tmp_path) as daemon:
        monkeypatch.setenv("WINDLASS_SERVER", daemon.url)
        made = await windlass("keys", "create", "ada")
        assert made.code == 0
        assert f"state folder: {tmp_path}/state, of the daemon at {daemon.url}" in made.err
        assert "ada" in (await windlass("keys", "list", STATE, str(tmp_path / "state"))).out
        monkeypatch.setenv("WINDLASS_STATE", str(tmp_path / "said"))
        assert (await windlass("keys", "create", "eve")).err.count("state folder") == 0
    assert (tmp_path / "said/keys.json").exists()
    monkeypatch.delenv("WINDLASS_STATE")
    for command in (("keys", "create", "bob"), ("keys", "list"), ("usage",), ("down",)):
        lost = await windlass(*command)
        assert lost.code == 1
        assert "error: there is no state folder .windlass here, and no daemon answers" in lost.err
    assert list((tmp_path / "elsewhere").iterdir()) == []
