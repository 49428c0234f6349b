"""The first command of each connection: whose root it is, and what the site is like."""

import os
import re
from typing import BinaryIO

from windlass_adapters.slurm.remote.files import write
from windlass_adapters.slurm.remote.site import QUERY_TIMEOUT, Answer, Refused, Request, Site


def hello(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """Make the root ours, install this program and the job's script, say what the site is like."""
    home = os.path.expanduser("~")
    if os.path.realpath(site.root) == os.path.realpath(home):
        raise Refused(
            "owner", "%s is the home folder; choose a folder on a shared disk" % site.root
        )
    if not request["first"]:
        site.check_owner()
    for name in ("", "bin", "cas", "jobs", "trash"):
        os.makedirs(site.path(name), mode=0o700, exist_ok=True)
    if not os.path.exists(site.path("OWNER")):
        temporary = site.path("OWNER.%d" % os.getpid())
        write(temporary, site.install.encode())
        try:
            os.link(temporary, site.path("OWNER"))
        except FileExistsError:
            pass
        finally:
            os.unlink(temporary)
    site.check_owner()
    for name, text in request["programs"].items():
        if not os.path.exists(site.path("bin", name)):
            write(site.path("bin", name), text.encode(), 0o700)
    done = site.run(["scontrol", "show", "config"], QUERY_TIMEOUT)
    if done.code != 0:
        raise Refused("controller", done.err.strip() or "scontrol did not answer")
    known = dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", done.out.decode("utf-8", "replace"), re.M))
    return {
        "version": known.get("SLURM_VERSION", ""),
        "max_array": int(known.get("MaxArraySize", "1001")),
        "accounting": "slurmdbd" in known.get("AccountingStorageType", ""),
        "node": os.uname()[1],
        "uid": os.getuid(),
    }
