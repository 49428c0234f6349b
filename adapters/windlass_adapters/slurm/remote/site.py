"""One cluster as one account sees it: Slurm's commands and the root folder."""

import os
import re
import subprocess
import time
from threading import Lock
from typing import Any, Dict, Iterable, List, NamedTuple, Optional

Request = Dict[str, Any]
Answer = Dict[str, Any]
PREFIX = "wl-"
QUERY_TIMEOUT = 45.0
SQUEUE_FIELDS = "%A|%F|%K|%T|%r|%N|%Z|%j"
LIVE = {
    "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT",
    "CONFIGURING", "RUNNING", "RESIZING", "SIGNALING", "STAGE_OUT", "COMPLETING", "EXPEDITING",
    "POWER_UP_NODE", "UPDATE_DB", "SUSPENDED", "STOPPED",
}  # fmt: skip


class Refused(Exception):
    """The request cannot be served; ``kind`` says why, in a word that the daemon knows."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Row(NamedTuple):
    """One line of squeue about a job of ours."""

    id: str
    master: str
    element: str
    state: str
    reason: str
    nodes: str
    name: str

    @property
    def label(self) -> str:
        """The id as a claim holds it."""
        return "%s_%s" % (self.master, self.element) if self.element.isdigit() else self.id


class Done(NamedTuple):
    """What a command of Slurm came to. ``code`` is None when it did not end in time."""

    code: Optional[int]
    out: bytes
    err: str


class Site:
    """One cluster as one account sees it: Slurm's commands, and the root folder."""

    def __init__(self, request: Request) -> None:
        self.root = request["root"]
        self.nonce = request["nonce"]
        self.install = request["install"]
        environment = {n: os.environ[n] for n in ("HOME", "USER", "LOGNAME") if n in os.environ}
        path = os.environ.get("PATH", "/usr/bin:/bin")
        environment["PATH"] = request["bin"] + ":" + path if request.get("bin") else path
        conf = request.get("conf") or os.environ.get("SLURM_CONF")
        if conf:
            environment["SLURM_CONF"] = conf
        environment["SHELL"] = "/bin/bash"
        environment["LC_ALL"] = "C"
        self.environment = environment
        self._rows: Optional[List[Row]] = None
        self._asking = Lock()
        self.waited = 0.0
        """Seconds that the controller took to answer."""

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def folder(self, tag: str, token: str) -> str:
        for part in (tag, token):
            if not re.match(r"^[a-z0-9]{8,40}$", part):
                raise Refused("request", "no name of a run: %r" % part)
        return self.path("jobs", tag, token)

    def check_owner(self) -> None:
        try:
            with open(self.path("OWNER")) as file:
                held = file.read().strip()
        except FileNotFoundError:
            raise Refused("root", "%s/OWNER is not there; is the disk mounted?" % self.root)
        if held != self.install:
            raise Refused("owner", "%s belongs to another installation (%s)" % (self.root, held))

    def run(self, argv: List[str], timeout: float, **more: str) -> Done:
        """Run one of Slurm's commands."""
        environment = dict(self.environment, **more)
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                close_fds=False,  # none of ours is inherited anyway; closing them takes long
            )
        except OSError as error:
            raise Refused("slurm", "%s cannot be run: %s" % (argv[0], error.strerror))
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            return Done(None, out, err.decode("utf-8", "replace"))
        return Done(process.returncode, out, err.decode("utf-8", "replace"))

    def squeue(self) -> List[Row]:
        """Every job of ours that the controller knows: one question to it. Refused if it failed."""
        with self._asking:
            if self._rows is None:
                self._rows = self._ask_queue()
            return self._rows

    def _ask_queue(self) -> List[Row]:
        started = time.monotonic()
        done = self.run(
            ["squeue", "--me", "-a", "-h", "-t", "all", "-o", self.nonce + "|" + SQUEUE_FIELDS],
            QUERY_TIMEOUT,
            SLURM_BITSTR_LEN="0",
        )
        self.waited = time.monotonic() - started
        if done.code != 0:
            raise Refused("controller", done.err.strip() or "squeue did not answer")
        text = done.out.decode("utf-8", "replace")
        return list(parse_squeue(text, self.nonce, self.root))


def parse_squeue(text: str, nonce: str, root: str) -> Iterable[Row]:
    """Lines about jobs that were submitted below the root.

    Each begins with this request's own mark: no name of a job can forge one.
    """
    for line in text.split("\n"):
        if line.startswith(nonce + "|"):
            fields = line.split("|", 8)[1:]
            if len(fields) != 8 or not fields[6].startswith(root + "/"):
                continue
            if fields[7].startswith(PREFIX):
                yield Row._make([*fields[:6], fields[7]])
