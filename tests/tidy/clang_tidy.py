#!/usr/bin/env python3
"""clang-tidy over the sources of a build folder, side by side. Minutes, not seconds: run before a
merge, not by CTest.

  tests/tidy/clang_tidy.py [--build build/dev] [--changed [SINCE]] [FILE ...]

Without files: all sources that the build compiles. --changed: those that differ from the commit
SINCE (main), or are not committed. clang-tidy 16 is wanted, as cmake/bootstrap clang installs it:
older ones do not compile the coroutines of g++ 12's library.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys

import tree

# g++'s own warnings are unknown to clang; Asio 1.22 looks for clang's coroutines under an old name.
EXTRA = ("-Wno-unknown-warning-option", "-DASIO_HAS_CO_AWAIT", "-DASIO_HAS_STD_COROUTINE",
         # The analyser follows our functions, and not the templates that they call: in Asio's
         # coroutines and std::optional's union it sees pointers unset and objects destroyed twice.
         "-Xclang", "-analyzer-config", "-Xclang", "c++-template-inlining=false")


def changed_since(commit):
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=tree.PROJECT, text=True, check=True,
                              capture_output=True).stdout.split("\n")
    uncommitted = git("ls-files", "--others", "--exclude-standard")
    return set(git("diff", "--name-only", commit) + uncommitted)


def compiled_sources(build):
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        commands = json.load(file)
    sources = {os.path.relpath(command["file"], tree.PROJECT) for command in commands}
    return sorted(source for source in sources if source in set(tree.files()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=os.path.join(tree.PROJECT, "build/dev"))
    parser.add_argument("--changed", nargs="?", const="main")
    parser.add_argument("files", nargs="*")
    asked = parser.parse_args()
    program = shutil.which("clang-tidy-16") or shutil.which("clang-tidy-19")
    if program is None:
        print("clang_tidy: no clang-tidy-16; run cmake/bootstrap clang")
        return 1
    sources = compiled_sources(asked.build)
    if asked.files:
        sources = [os.path.relpath(os.path.abspath(path), tree.PROJECT) for path in asked.files]
    elif asked.changed:
        sources = [path for path in sources if path in changed_since(asked.changed)]

    def tidy(source):
        extra = [f"--extra-arg={argument}" for argument in EXTRA]
        return subprocess.run([program, "--quiet", "-p", asked.build, *extra, source],
                              cwd=tree.PROJECT, capture_output=True, text=True, check=False)

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for source, run in zip(sources, pool.map(tidy, sources)):
            if run.returncode != 0:
                failed += 1
                print(f"{source}:\n{run.stdout}{run.stderr}")
    print(f"clang_tidy: {len(sources)} sources, {failed} to mend")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
