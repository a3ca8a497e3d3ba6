#!/usr/bin/env python3
"""Every C++ source is as clang-format would write it.

  tests/tidy/format.py          says which are not, and how to mend them
  tests/tidy/format.py --fix    rewrites them
"""

import subprocess
import sys

import tree


def main():
    sources = [path for path in tree.files() if tree.is_cpp(path)]
    if not sources:
        return 0
    how = ["-i"] if "--fix" in sys.argv[1:] else ["--dry-run", "-Werror"]
    run = subprocess.run(["clang-format", "--style=file", *how, *sources], cwd=tree.PROJECT,
                         capture_output=True, text=True, check=False)
    if run.returncode != 0:
        print(run.stderr, end="")
        print("format: not as clang-format writes it; run tests/tidy/format.py --fix")
    return 1 if run.returncode != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
