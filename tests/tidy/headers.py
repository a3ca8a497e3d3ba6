#!/usr/bin/env python3
"""Every header compiles alone, without warnings, and twice in one file.

  tests/tidy/headers.py --compiler g++ --build build/dev [--root ROOT] [--jobs 2]
"""

import os
import sys

import compiling
import tree

# `-include` rather than naming the header as the source: gcc warns of #pragma once there.
FLAGS = ("-std=c++20 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wold-style-cast -Werror"
         " -Wno-unused-const-variable -fsyntax-only -include $in -include $in -x c++ /dev/null")


def main():
    asked = compiling.options()
    headers = [path for path in tree.files(asked.root) if tree.is_header(path)]
    sources = [(header, os.path.join(asked.root, header)) for header in headers]
    if not compiling.all_compile(asked, os.path.join(asked.build, "headers"), FLAGS, sources):
        print("headers: a header above does not compile alone; include what it uses")
        return 1
    print(f"headers: {len(headers)} compile alone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
