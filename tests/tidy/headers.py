#!/usr/bin/env python3
"""Every header compiles alone, without warnings, and twice in one file.

  tests/tidy/headers.py --compiler g++ --build build/dev [--root ROOT] [--jobs 2]

Writes a build.ninja of its own, one edge per header, under BUILD/headers: ninja keeps both cores
busy, goes on after a failure, and the second run only compiles what changed.
"""

import argparse
import os
import subprocess
import sys

import tree

FLAGS = ("-std=c++20 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wold-style-cast -Werror"
         " -Wno-unused-const-variable -fsyntax-only")


def ninja_file(root, build, compiler, headers):
    """`-include` rather than naming the header as the source: gcc warns of #pragma once there."""
    rule = (f"rule header\n  command = {compiler} {FLAGS} -I {root} -isystem {build}"
            " -MMD -MF $out.d -MT $out -include $in -include $in -x c++ /dev/null && touch $out\n"
            "  deps = gcc\n  depfile = $out.d\n  description = $in\n")
    edges = [f"build {header}.ok: header {os.path.join(root, header)}\n" for header in headers]
    return rule + "".join(edges)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--build", required=True)
    parser.add_argument("--root", default=tree.PROJECT)
    parser.add_argument("--jobs", default="2")
    asked = parser.parse_args()
    root, build = os.path.abspath(asked.root), os.path.abspath(asked.build)
    headers = [path for path in tree.files(root) if tree.is_header(path)]
    folder = os.path.join(build, "headers")
    os.makedirs(folder, exist_ok=True)
    wanted = ninja_file(root, build, asked.compiler, headers)
    with open(os.path.join(folder, "build.ninja"), "w", encoding="utf-8") as file:
        file.write(wanted)
    run = subprocess.run(["ninja", "-C", folder, "-k", "0", "-j", asked.jobs], check=False)
    if run.returncode != 0:
        print("headers: a header above does not compile alone; include what it uses")
        return 1
    print(f"headers: {len(headers)} compile alone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
