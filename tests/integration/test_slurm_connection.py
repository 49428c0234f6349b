"""The one SSH connection: who is believed, what it costs, and what happens when it breaks."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest
from pydantic import JsonValue

from rig.hpc import Hpc, look, observed, ran, settled, start
from rig.slurm import Cluster, cluster
from rig.slurm_site import Site
from windlass_adapters.base import AdapterError, Found, State, TransientError
from windlass_adapters.slurm import SlurmAdapter
from windlass_schemas import Reason


@pytest.fixture(scope="module")
def site() -> Iterator[Cluster]:
    """A server that allows two sessions of a connection."""
    with cluster(Site(max_sessions=2)) as found:
        yield found


async def refusal(hpc: Hpc) -> AdapterError:
    """What the first question gives."""
    job = hpc.shell("true")
    async with hpc.adapter() as adapter:
        with pytest.raises(AdapterError) as caught:
            await adapter.find(job.owner)
        with pytest.raises(AdapterError) as again:
            await adapter.find(job.owner)
    assert str(again.value) == str(caught.value), "asked again at once"
    return caught.value


async def test_an_unknown_host_key_stops_everything_before_anything_is_sent(
    site: Cluster, tmp_path: Path
) -> None:
    """No authentication is tried, and not again and again."""
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    before = site.layout.log("sshd").read_text().count("Postponed publickey")
    params: dict[str, JsonValue] = {"knownHosts": None, "hostKey": " ".join(other.split()[:2])}
    error = await refusal(Hpc(site, tmp_path, **params))
    assert error.reason is Reason.UNAUTHORIZED
    assert "cannot prove who it is" in str(error)
    assert site.layout.log("sshd").read_text().count("Postponed publickey") == before


async def test_a_host_that_is_made_known_is_spoken_to_at_once(
    site: Cluster, tmp_path: Path
) -> None:
    """The long pause is for those who change nothing."""
    known = tmp_path / "known_hosts"
    hpc = Hpc(site, tmp_path, knownHosts=str(known))
    owner = hpc.shell("true").owner
    async with hpc.adapter() as adapter:
        with pytest.raises(AdapterError, match="is not there") as caught:
            await adapter.find(owner)
        assert caught.value.reason is Reason.UNAUTHORIZED
        known.touch()
        with pytest.raises(AdapterError, match=f"ssh-keyscan -p {site.login.port} ") as caught:
            await adapter.find(owner)
        assert caught.value.reason is Reason.UNAUTHORIZED
        known.write_text(site.login.known_hosts.read_text())
        assert await adapter.find(owner) == []


async def test_hosts_are_known_where_the_ssh_configuration_says(
    site: Cluster, tmp_path: Path
) -> None:
    """And one that says ``none`` makes nobody known."""
    config = tmp_path / "config"
    hpc = Hpc(site, tmp_path, knownHosts=None, sshConfig=str(config))
    owner = hpc.shell("true").owner
    config.write_text(f"Host {site.login.host}\n  UserKnownHostsFile none\n")
    assert (await refusal(hpc)).reason is Reason.UNAUTHORIZED
    known = site.login.known_hosts
    config.write_text(f"Host {site.login.host}\n  UserKnownHostsFile {known}\n")
    async with hpc.adapter() as adapter:
        assert await adapter.find(owner) == []


async def test_a_pinned_host_key_is_enough(site: Cluster, tmp_path: Path) -> None:
    """No known_hosts file is needed."""
    key = " ".join(site.login.known_hosts.read_text().split()[1:3])
    hpc = Hpc(site, tmp_path, knownHosts=None, hostKey=key)
    async with hpc.adapter() as adapter:
        assert (await ran(adapter, hpc.shell("true"))).state is State.SUCCEEDED


async def test_a_key_that_is_refused_is_not_tried_in_a_storm(site: Cluster, tmp_path: Path) -> None:
    """Sites ban who tries too often."""
    key = tmp_path / "key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(key)
    error = await refusal(Hpc(site, tmp_path, key=f"file:{key}"))
    assert error.reason is Reason.UNAUTHORIZED
    assert "does not let us in" in str(error)


def locked(key: Path, copy: Path, words: str) -> Path:
    """A copy of a key with a passphrase, as ssh-keygen makes it."""
    shutil.copyfile(key, copy)
    copy.chmod(0o600)
    lock = ["ssh-keygen", "-q", "-p", "-P", "", "-N", words, "-f", str(copy)]
    subprocess.run(lock, check=True, capture_output=True)
    return copy


async def test_a_key_with_a_passphrase_is_opened_with_it(
    site: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ssh-keygen makes them today. A wrong passphrase is told, and never itself."""
    key, words = locked(site.login.key, tmp_path / "key", "right words"), tmp_path / "words"
    words.write_text("right words\n")
    monkeypatch.setenv("WORDS", "wrong words")
    error = await refusal(Hpc(site, tmp_path, key=f"file:{key}", passphrase="env:WORDS"))
    assert (error.reason, "params.passphrase" in str(error)) == (Reason.UNAUTHORIZED, True)
    assert "wrong words" not in str(error)
    hpc = Hpc(site, tmp_path, key=f"file:{key}", passphrase=f"file:{words}")
    monkeypatch.setenv("WORDS", "right words")
    again = Hpc(site, tmp_path, key=f"file:{key}", passphrase="env:WORDS")
    for each in (hpc, again):
        async with each.adapter() as adapter:
            assert await adapter.find(each.shell("true").owner) == []


@pytest.fixture
def agent(
    site: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], object]]:
    """An agent without keys, and no keys of whoever runs this; called, it gets the right one."""
    socket = site.layout.folder / "agent"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    monkeypatch.setenv("HOME", str(tmp_path))
    running = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    add = ["ssh-add", "-q", str(site.login.key)]
    try:
        site.await_state(socket.exists, "an agent")
        yield lambda: subprocess.run(add, check=True, capture_output=True)
    finally:
        running.terminate()
        running.wait(10)


async def test_without_a_key_the_agent_is_asked(
    site: Cluster, tmp_path: Path, agent: Callable[[], object]
) -> None:
    """The key never leaves the agent, and no file of ours names it."""
    hpc = Hpc(site, tmp_path, key=None)
    assert (await refusal(hpc)).reason is Reason.UNAUTHORIZED
    agent()
    async with hpc.adapter() as adapter:
        assert await adapter.find(hpc.shell("true").owner) == []


async def test_trusting_anybody_must_be_spelled_out_and_warns(
    site: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At each connection."""
    hpc = Hpc(site, tmp_path, knownHosts=None, insecureIgnoreHostKey=True)
    async with hpc.adapter() as adapter:
        await adapter.find(hpc.shell("true").owner)
    assert "the host key is not verified" in capsys.readouterr().out


async def test_the_ssh_configuration_and_jump_hosts_are_honoured(
    site: Cluster, tmp_path: Path
) -> None:
    """A name that only the configuration knows, by way of another machine."""
    login = site.login
    config = tmp_path / "config"
    config.write_text(
        f"Host hpc\n  HostName {login.host}\n  Port {login.port}\n  User {login.user}\n"
    )
    jump: JsonValue = {"host": login.host, "port": login.port, "user": login.user}
    hpc = Hpc(site, tmp_path, host="hpc", port=None, user=None, sshConfig=str(config))
    jumping = Hpc(site, tmp_path, jumpHosts=[jump])
    for each in (hpc, jumping):
        before = site.authentications()
        async with each.adapter() as adapter:
            assert await adapter.find(each.shell("true").owner) == []
        assert site.authentications() == before + (2 if each is jumping else 1)


async def test_fifty_jobs_take_one_authentication_and_two_sessions(
    site: Cluster, tmp_path: Path
) -> None:
    """Submitted together, looked at together; the server allows no third session."""
    hpc = Hpc(site, tmp_path)
    jobs = [hpc.shell(f"echo {n} > o", f"job-{n}", uid=f"{n:016}", outputs={"o": "o"})
            for n in range(50)]  # fmt: skip
    before = site.authentications()
    site.sdiag_reset()
    async with hpc.adapter() as adapter:
        await asyncio.gather(*(adapter.find(job.owner) for job in jobs))
        made = await asyncio.gather(*(start(adapter, job) for job in jobs))
        logs = [adapter.read_log(found.external, "stdout", 0) for found in made]
        found = await asyncio.gather(
            *(settled(adapter, j.owner, f.external) for j, f in zip(jobs, made, strict=True)), *logs
        )
    assert sum(isinstance(f, Found) and f.state is State.SUCCEEDED for f in found) == 50
    assert site.authentications() == before + 1
    assert len(hpc.claims()) == 50
    asked, told = site.sdiag(), counted(adapter)
    assert told["slurm_authentications"] == 1
    assert told["slurm_submissions ok"] == asked["REQUEST_SUBMIT_BATCH_JOB"] == 50
    assert told["slurm_execs submit ok"] < 10
    assert told["slurm_looks"] == told["slurm_execs look ok"]
    # Before a submission the queue is asked for no run: nothing of it was there.
    assert told["slurm_looks"] == asked["REQUEST_JOB_USER_INFO"]
    assert told["slurm_look_seconds"] > 0
    assert told["slurm_jobs COMPLETED"] == 50
    assert told["slurm_tracked_runs"] == 0


def counted(adapter: SlurmAdapter) -> dict[str, float]:
    """Its own numbers, by name and labels."""
    return {" ".join([n.name, *n.labels.values()]): n.value for n in adapter.numbers()}


@pytest.mark.parametrize(
    "count", [30, *(pytest.param(n, marks=pytest.mark.long) for n in (1000, 5000))]
)
async def test_one_look_is_one_command_and_one_question_however_many_jobs(
    site: Cluster, tmp_path: Path, count: int
) -> None:
    """To the controller, filtered over there; never its whole table."""
    hpc = Hpc(site, tmp_path, limits={"poll": "1s", "idlePoll": "1s", "batch": 500})
    options: JsonValue = {"partition": "closed", "coalesce": count > 30}
    jobs = [hpc.shell("true", f"job-{n}", uid=f"{n:016}", options=options) for n in range(count)]
    async with hpc.adapter() as adapter:
        made = await asyncio.gather(*(start(adapter, job) for job in jobs))
        asked = [(j.owner, f.external) for j, f in zip(jobs, made, strict=True)]
        await adapter.observe_many(asked)  # which also looks at what nobody asked for
        site.sdiag_reset()
        before = counted(adapter)
        while (looks := counted(adapter)["slurm_looks"] - before["slurm_looks"]) < 3:
            seen = await adapter.observe_many(asked)
            assert all(isinstance(each, Found) for each in seen.values())
            await asyncio.sleep(0.1)
        names = {name for name in counted(adapter) if name.startswith("slurm_execs")}
        execs = sum(counted(adapter)[name] - before.get(name, 0) for name in names)
        questions = {n: asks for n, asks in site.sdiag().items() if n.startswith("REQUEST_JOB")}
        assert (execs, questions) == (looks, {"REQUEST_JOB_USER_INFO": looks})
        site.admin("scancel", "--user", site.user.name)


async def test_a_login_node_that_goes_and_comes_back_changes_no_run(
    site: Cluster, tmp_path: Path
) -> None:
    """While it is away every answer is a refusal to answer."""
    hpc = Hpc(site, tmp_path)
    job = hpc.shell("sleep 4; echo 1 > o", outputs={"o": "o"})
    async with hpc.adapter() as adapter:
        made = await start(adapter, job)
        await observed(adapter, job.owner, made.external, lambda f: "runs" in f.message, "it runs")
        site.drop_sessions()
        site.kill("sshd")
        error: AdapterError | None = None
        while error is None:  # what was seen a moment ago is still an answer
            try:
                seen = await look(adapter, job.owner, made.external)
                assert isinstance(seen, Found)
                assert seen.state is State.PROGRESSING
                await asyncio.sleep(0.1)
            except AdapterError as raised:
                error = raised
        assert isinstance(error, TransientError)
        site.start("sshd")
    async with hpc.adapter() as adapter:
        found = await settled(adapter, job.owner, made.external)
    assert found.state is State.SUCCEEDED
    assert len(hpc.claims()) == 1
