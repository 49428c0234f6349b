"""The folder of a run, made whole elsewhere and then given its name."""

import errno
import json
import os
import shutil
from threading import get_ident
from typing import Optional

from windlass_adapters.slurm.remote.blobs import blob_path, usable
from windlass_adapters.slurm.remote.files import listing, make_folder, read, throw_away
from windlass_adapters.slurm.remote.records import order_of
from windlass_adapters.slurm.remote.site import Answer, Request, Site


def stage(site: Site, folder: str, run: Request) -> Optional[Answer]:
    """Make the folder whole elsewhere and give it its name; nothing if it is there."""
    if order_of(folder):
        return None
    if os.path.isdir(folder):  # from before a crash of the disk: not whole
        throw_away(folder, site.path("trash"))
    missing = sorted({f[1] for f in run["files"] if not usable(blob_path(site, f[1]), f[1])})
    if missing:
        return {"missing": missing}
    parent = os.path.dirname(folder)
    make_folder(parent)
    staging = os.path.join(parent, ".%s.%d.%d" % (run["token"], os.getpid(), get_ident()))
    shutil.rmtree(staging, ignore_errors=True)
    for name in ("", "work", "log", *(["template"] if run["array"] else [])):
        os.mkdir(os.path.join(staging, name), 0o700)
    for path, digest, mode, how in run["files"]:
        try:
            place(blob_path(site, digest), os.path.join(staging, path), mode, how)
        except FileNotFoundError:  # swept since it was looked at
            shutil.rmtree(staging, ignore_errors=True)
            return {"missing": [digest]}
    for path, text in run["texts"].items():
        target = os.path.join(staging, path)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
    keep_done(site, staging, run)
    with open(os.path.join(staging, "order.json"), "w") as file:
        json.dump(run["order"], file)
    try:
        os.rename(staging, folder)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    return None


def place(source: str, target: str, mode: int, how: str) -> None:
    """A private copy, or another name of the same file, which nobody may change."""
    make_folder(os.path.dirname(target))
    if how == "link":
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
        else:
            return
    shutil.copyfile(source, target)
    os.chmod(target, mode)


def keep_done(site: Site, staging: str, run: Request) -> None:
    """Elements that an earlier attempt has ended well are not run again: a link leads to them."""
    for token in run["previous"]:
        earlier = site.folder(run["tag"], token)
        for name in listing(earlier):
            index = name.partition(".")[2]
            target = os.path.join(staging, "kept." + index)
            if name.startswith("kept.") and not os.path.lexists(target):
                os.symlink(os.readlink(os.path.join(earlier, name)), target)
            elif name.startswith("rc.") and index.isdigit() and not os.path.lexists(target):
                ended = (read(os.path.join(earlier, name)) or "").split()
                if ended[:1] == ["0"]:
                    os.symlink("../" + token, target)
