"""What headers.py and documents.py share: many small files, each compiled alone by a build.ninja of
its own. ninja keeps the cores busy, goes on after a failure, and the second run only compiles what
changed.
"""

import argparse
import os
import subprocess

import tree


def options():
    """What the command line says, with absolute paths."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--build", required=True, type=os.path.abspath)
    parser.add_argument("--root", default=tree.PROJECT, type=os.path.abspath)
    parser.add_argument("--jobs", default="2")
    return parser.parse_args()


def all_compile(asked, folder, flags, sources):
    """Compiles each of `sources`, (name, path), with `flags`, which name `$in`; whether all did."""
    os.makedirs(folder, exist_ok=True)
    rule = (f"rule alone\n  command = {asked.compiler} -I {asked.root} -isystem {asked.build}"
            f" -MMD -MF $out.d -MT $out {flags} && touch $out\n"
            "  deps = gcc\n  depfile = $out.d\n  description = $in\n")
    edges = [f"build {name}.ok: alone {path}\n" for name, path in sources]
    with open(os.path.join(folder, "build.ninja"), "w", encoding="utf-8") as file:
        file.write(rule + "".join(edges))
    run = subprocess.run(["ninja", "-C", folder, "-k", "0", "-j", asked.jobs], check=False)
    return run.returncode == 0
