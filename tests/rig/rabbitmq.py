"""A private RabbitMQ from Debian's package: own ports, own epmd, own cookie, own folder.

As root it runs as the user that the package brings, and as an ordinary user as that one. Its folder
lies outside pytest's, whose folders nobody else may enter. It takes some 8 s to start, so a test
run starts one (``conftest.broker``), and each test takes a virtual host that no test had before.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from rig.certificates import make_certificates
from rig.project import free_ports

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
"""Not those in /usr/sbin, which insist on the folders of the package's own server."""
PACKAGE_USER = "rabbitmq"
PASSWORD = "guest"
VHOSTS = 64
"""Virtual hosts that are there from the start; one more costs a second, these cost 40 ms each."""
ASKER = """
Ask = fun(Ask) -> case io:get_line("") of eof -> halt(); Line ->
    Answer = try
        {ok, Tokens, _} = erl_scan:string(Line),
        {ok, Said} = erl_parse:parse_exprs(Tokens),
        case rpc:call('NODE', erl_eval, exprs, [Said, []]) of
            {value, Value, _} -> Value;
            Bad -> {failed, Bad}
        end
    catch _:Why -> {failed, Why} end,
    io:format("~0p~n", [Answer]), Ask(Ask) end end,
Ask(Ask).
"""
"""Each line on its standard input is evaluated in the server, and its value printed on a line."""
START_BOUND = 120.0
STOP_BOUND = 60.0
_STARTING = ThreadPoolExecutor(1, "broker")


class Broker:
    """One server. ``running_broker`` starts and stops it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.tls_port, self._epmd_port, distribution = free_ports(4)
        self._next = iter(range(VHOSTS))
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._asker: subprocess.Popen[str] | None = None
        self.certificates = make_certificates(folder / "tls")
        self._write_configuration()
        if os.geteuid() == 0:
            _give_to_package_user(folder)
        arguments = "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 -start_epmd false"
        self._environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"rig{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CTL_DIST_PORT_MIN": "30000",
            "RABBITMQ_CTL_DIST_PORT_MAX": "60000",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": arguments,
            # Then the script becomes the server, and its process id is the server's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    # ---- what tests use

    def vhost(self) -> str:
        """A virtual host that is empty still."""
        return f"t{next(self._next)}"

    def url(self, vhost: str, user: str = "guest", password: str = PASSWORD) -> str:
        """Where clients connect, in the clear."""
        return f"amqp://{user}:{password}@127.0.0.1:{self.port}/{vhost}"

    def control(self, *arguments: str) -> str:
        """What ``rabbitmqctl`` says."""
        done = subprocess.run(
            ["setpriv", *self._as_user(), PROGRAMS / "rabbitmqctl", "-q", *arguments],
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=START_BOUND,
            check=False,
        )
        assert done.returncode == 0, f"rabbitmqctl {arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    def control_script(self) -> str:
        """A program that stands for ``rabbitmqctl`` on a user's machine."""
        said = " ".join(f"{name}={shlex.quote(v)}" for name, v in self._environment.items())
        user = " ".join(self._as_user())
        copy = self.folder / "handed.json"
        return (
            "#!/bin/sh\n"  # a file of the user's is read as the user
            f'if [ "$1" = import_definitions ]; then cat "$2" > {copy}; set -- "$1" {copy}; fi\n'
            f'cd {self.folder} && exec env -i {said} setpriv {user} {PROGRAMS}/rabbitmqctl "$@"\n'
        )

    def evaluate(self, expression: str) -> str:
        """What an Erlang expression comes to in the server: as ``rabbitmqctl eval``, at once."""
        if self._asker is None:
            node = self._environment["RABBITMQ_NODENAME"]
            said = ASKER.replace("NODE", node).replace("\n", " ")
            name = f"asker{self.port}@localhost"
            command = ["erl", "-noshell", "-hidden", "-sname", name, "-eval", said]
            self._asker = subprocess.Popen(
                ["setpriv", *self._as_user(), *command],
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._asker.stdin is not None
        assert self._asker.stdout is not None
        self._asker.stdin.write(f"{expression}\n")
        self._asker.stdin.flush()
        answer = self._asker.stdout.readline().strip()
        assert answer, f"{expression}: no answer"
        assert not answer.startswith("{failed,"), f"{expression}: {answer}"
        return answer

    def queue_depth(self, vhost: str, queue: str) -> int | None:
        """Messages in a queue, those under way to consumers too; None without the queue."""
        for line in self.control("list_queues", "-p", vhost, "name", "messages").splitlines()[1:]:
            name, messages = line.split("\t")
            if name == queue:
                return int(messages)
        return None

    # ---- life

    def start(self) -> None:
        """Start it, with everything that it knew before, and wait until it answers."""
        if self._epmd is None:
            self._epmd = self._launch(
                "epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"
            )
        self._server = self._launch(str(PROGRAMS / "rabbitmq-server"))
        deadline = time.monotonic() + START_BOUND
        while not self.answers():
            assert self._server.poll() is None, f"the broker ended: {self.log()}"
            assert time.monotonic() < deadline, f"the broker does not start: {self.log()}"
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether it speaks AMQP now."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as probe:
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(1) == b"\x01"
        return False

    def stop(self) -> None:
        """Stop it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a warning, once it has written down which queues it has.

        RabbitMQ 3.10 does so some time after a quorum queue was declared; killed before that, it
        has lost the queue's messages, confirmed or not.
        """
        self.evaluate("[dets:sync(Table) || Table <- dets:all()].")
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Keep its connections, and do nothing more."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop whatever runs, epmd too."""
        if self._asker is not None:
            self._asker.communicate(timeout=STOP_BOUND)  # it ends when nobody asks any more
            self._asker = None
        if self._server is not None:
            self.thaw()
        self.stop()
        if self._epmd is not None:
            self._epmd.terminate()
            self._epmd.wait(STOP_BOUND)
            self._epmd = None

    def log(self) -> str:
        """The end of what it has written."""
        return (self.folder / "output").read_text(errors="replace")[-4000:]

    def _end(self, number: signal.Signals) -> None:
        if self._server is None:
            return
        self._server.send_signal(number)
        try:
            self._server.wait(STOP_BOUND)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait(STOP_BOUND)
        self._server = None

    def _as_user(self) -> list[str]:
        """Options of setpriv: root becomes the package's user, any other stays who it is."""
        if os.geteuid() != 0:
            return ["--no-new-privs"]
        user = pwd.getpwnam(PACKAGE_USER)
        return [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def _launch(self, *command: str) -> subprocess.Popen[bytes]:
        # setpriv: also when pytest itself is killed, nothing stays behind. The signal comes when
        # the thread ends that started the process, so one thread starts them all.
        with (self.folder / "output").open("ab") as output:
            return _STARTING.submit(
                subprocess.Popen,
                ["setpriv", "--pdeathsig", "TERM", *self._as_user(), *command],
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            ).result()

    def _write_configuration(self) -> None:
        tls = self.certificates
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
            f"ssl_options.cacertfile = {tls.authority}\n"
            f"ssl_options.certfile = {tls.certificate}\n"
            f"ssl_options.keyfile = {tls.key}\n"
            "ssl_options.versions.1 = tlsv1.3\n"
            f"load_definitions = {self.folder / 'definitions.json'}\n"
            "disk_free_limit.absolute = 50MB\n"
        )
        (self.folder / "enabled_plugins").write_text("[].\n")
        vhosts = ["/", *(f"t{number}" for number in range(VHOSTS))]
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "users": [{"name": "guest", "password": PASSWORD, "tags": "administrator"}],
            "vhosts": [{"name": name} for name in vhosts],
            "permissions": [{"user": "guest", "vhost": name, **everything} for name in vhosts],
        }
        (self.folder / "definitions.json").write_text(json.dumps(definitions))


def _give_to_package_user(folder: Path) -> None:
    user = pwd.getpwnam(PACKAGE_USER)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)


@contextmanager
def running_broker() -> Iterator[Broker]:
    """A started broker; whatever happens, it is stopped and its folder removed."""
    folder = Path(tempfile.mkdtemp(prefix="windlass-rabbitmq-"))
    folder.chmod(0o755)
    try:
        broker = Broker(folder)
        try:
            broker.start()
            yield broker
        finally:
            broker.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
