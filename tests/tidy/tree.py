"""Which files the checks of this folder read: all on disk, so that an export without git is checked
like a clone. Build folders, caches and hidden folders (but .ci) are not the project's."""

import os

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SKIPPED = {"build", "__pycache__"}


def files(root=PROJECT):
    """Paths of all files, relative to root, sorted."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f == ".ci" or not (f in SKIPPED or f.startswith("."))]
        for name in names:
            found.append(os.path.relpath(os.path.join(folder, name), root))
    return sorted(found)


def is_cpp(path):
    return path.endswith((".hpp", ".cpp"))


def is_header(path):
    return path.endswith(".hpp")


def is_cmake(path):
    return path.endswith(".cmake") or os.path.basename(path) == "CMakeLists.txt"
