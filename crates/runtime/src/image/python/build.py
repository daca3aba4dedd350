"""Runs as root inside a sandbox without a network: installs wheels, and packs what that changed into a layer.

    build.py LOCK WHEELS ARCHIVE

The archive is a plain ustar with directories, files and symbolic links, all owned by root, in the order of their paths.
An empty file `.wh.NAME` says that NAME of the layers below is gone.
"""

import os
import stat
import subprocess
import sys
import tarfile

# What an installation may change; and matplotlib's list of the system's fonts, which takes seconds to make.
PLACES = ["usr/local", "root/.cache/matplotlib"]


def look(top):
    """Every path below a directory, with what a change of its file changes too."""
    found = {}
    stack = [top]
    while stack:
        path = stack.pop()
        try:
            entry = os.lstat("/" + path)
        except FileNotFoundError:
            continue
        found[path] = (entry.st_mode, entry.st_size, entry.st_ino, entry.st_ctime_ns)
        if stat.S_ISDIR(entry.st_mode):
            stack.extend(path + "/" + name for name in os.listdir("/" + path))
    return found


def run(*arguments):
    ran = subprocess.run(arguments, stdin=subprocess.DEVNULL)
    if ran.returncode != 0:
        sys.exit(ran.returncode)


def install(lock, wheels):
    run(
        sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--only-binary=:all:", "--require-hashes",
        "--no-cache-dir", "--force-reinstall", "--disable-pip-version-check", "--no-warn-script-location", "--progress-bar=off", "--quiet",
        "--compile", "--find-links", wheels, "--requirement", lock,
    )  # fmt: skip


def make_font_list():
    run(sys.executable, "-c", "import matplotlib.font_manager")


def header(path, entry):
    info = tarfile.TarInfo(path)
    info.mode = stat.S_IMODE(entry.st_mode) & 0o755
    info.mtime = int(entry.st_mtime)
    return info


def pack(before, archive):
    after = {}
    for place in PLACES:
        after.update(look(place))
    gone = [path for path in before if path not in after and os.path.dirname(path) in after]
    changed = {path for path in after if before.get(path) != after[path]}
    kept = {path for path in changed if not stat.S_ISDIR(after[path][0]) or path not in before}
    # A directory of an archive's entry precedes it.
    for path in list(kept) + gone:
        while path := os.path.dirname(path):
            kept.add(path)
    removed = {os.path.join(os.path.dirname(path), ".wh." + os.path.basename(path)) for path in gone}
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(kept | removed, key=lambda path: path.split("/")):
            if path in removed:
                tar.addfile(tarfile.TarInfo(path))
                continue
            entry = os.lstat("/" + path)
            info = header(path, entry)
            if stat.S_ISDIR(entry.st_mode):
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif stat.S_ISLNK(entry.st_mode):
                info.type = tarfile.SYMTYPE
                info.linkname = os.readlink("/" + path)
                tar.addfile(info)
            elif stat.S_ISREG(entry.st_mode):
                info.size = entry.st_size
                with open("/" + path, "rb") as content:
                    tar.addfile(info, content)
            else:
                sys.exit(f"/{path} is neither a file nor a directory nor a link")


def main():
    lock, wheels, archive = sys.argv[1:]
    before = {}
    for place in PLACES:
        before.update(look(place))
    install(lock, wheels)
    make_font_list()
    pack(before, archive)


main()
