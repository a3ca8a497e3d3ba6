#!/usr/bin/env python3
"""Every C++ block of a document compiles, without warnings, as a user would paste it.

  tests/tidy/documents.py --compiler g++ --build build/dev [--root ROOT] [--jobs 2]

The rule is: what a document opens with ```cpp is a whole source file, with its includes. A thought
that is no file stands in a sentence, or in a block without a language. Each block becomes a file
under BUILD/documents, whose #line says where it stands, so that the compiler names the document.
"""

import os
import re
import sys

import compiling
import tree

FLAGS = "-std=c++20 -Wall -Wextra -Wpedantic -Wshadow -Werror -fsyntax-only $in"
BLOCK = re.compile(r"^```cpp\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(text):
    """(line, source) of each C++ block; the line is that of its first line."""
    return [(text.count("\n", 0, found.start(1)) + 1, found.group(1))
            for found in BLOCK.finditer(text)]


def write_if_changed(path, text):
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def extract(root, folder):
    """Writes all blocks into the folder; their paths."""
    written = []
    for path in tree.files(root):
        if not path.endswith(".md"):
            continue
        with open(os.path.join(root, path), encoding="utf-8") as file:
            blocks = blocks_of(file.read())
        for line, source in blocks:
            name = os.path.join(folder, f"{path.replace('/', '.')}.{line}.cpp")
            write_if_changed(name, f'#line {line} "{os.path.join(root, path)}"\n{source}')
            written.append(name)
    return written


def main():
    asked = compiling.options()
    folder = os.path.join(asked.build, "documents")
    os.makedirs(folder, exist_ok=True)
    blocks = extract(asked.root, folder)
    if not blocks:
        print("documents: no C++ block was found, so nothing was shown")
        return 1
    if not compiling.all_compile(asked, folder, FLAGS, [(block, block) for block in blocks]):
        print("documents: a block above does not compile: mend it, or give it all that it needs")
        return 1
    print(f"documents: {len(blocks)} blocks compile")
    return 0


if __name__ == "__main__":
    sys.exit(main())
