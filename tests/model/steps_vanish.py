#!/usr/bin/env python3
"""Named steps (bus/base/step.hpp) cost nothing where they are not taken; each name has one place.

  tests/model/steps_vanish.py --compiler g++ --build build/dev

Compiles the sources of the data path as the preset release does, twice: as they are, with steps not
taken, and from a copy in which every line that takes a step is empty. The two must disassemble to
the same instructions, calls and constants. With steps taken they must not, or nothing was shown.
"""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA_PATH = ("bus/link/bell.cpp", "transports/shm/arena.cpp", "transports/shm/hub.cpp",
             "transports/shm/lane_in.cpp", "transports/shm/lane_out.cpp")
FLAGS = ("-std=c++20", "-O3", "-DNDEBUG", "-fPIC", "-c")
# Alone in its line: what tests strip, readers can skip.
TAKEN = re.compile(r'^\s*(?:bus::)?step\("([^"]+)"\);$', re.MULTILINE)
MENTIONED = re.compile(r'\bstep\("([^"]+)"\)')


def sources():
    for room in ("bus", "transports"):
        for folder, _, names in os.walk(os.path.join(PROJECT, room)):
            for name in sorted(names):
                if name.endswith((".hpp", ".cpp")):
                    yield os.path.relpath(os.path.join(folder, name), PROJECT)


def read(path):
    with open(os.path.join(PROJECT, path), encoding="utf-8") as file:
        return file.read()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def check_names():
    """What is wrong with the names: each in the list has one place, alone in its line."""
    listed = re.findall(r'^    "([a-z_.]+)",', read("bus/base/step.hpp"), re.MULTILINE)
    places = {}
    wrong = []
    for path in sources():
        text = read(path)
        if len(TAKEN.findall(text)) != len(MENTIONED.findall(text)):
            wrong.append(f"{path}: a step is not alone in its line")
        for name in MENTIONED.findall(text):
            places.setdefault(name, []).append(path)
    for name in listed:
        if len(places.get(name, ())) != 1:
            wrong.append(f"{name}: has {len(places.get(name, ()))} places and not one")
    for name in sorted(set(places) - set(listed)):
        wrong.append(f"{name}: is not in step_names")
    return wrong, len(listed)


def copy_without_steps(to):
    for path in sources():
        write(os.path.join(to, path), TAKEN.sub("", read(path)))


def make_switch(to, taken):
    template = read("bus/base/step_switch.hpp.in")
    write(os.path.join(to, "bus/base/step_switch.hpp"),
          template.replace("@OMNIBUS_STEPS_VALUE@", taken))
    return to


def disassembled(asked, root, switch, path):
    """The code of one source below `root`; its file names are those of any other root."""
    made = os.path.join(asked.work, os.path.basename(switch), os.path.basename(root),
                        path.replace("/", ".") + ".o")
    os.makedirs(os.path.dirname(made), exist_ok=True)
    launcher = [shutil.which("ccache")] if shutil.which("ccache") else []
    subprocess.run([*launcher, asked.compiler, *FLAGS, f"-ffile-prefix-map={root}=.", "-I", root,
                    "-isystem", switch, os.path.join(root, path), "-o", made], check=True)
    # Instructions, what they refer to, and the bytes of all other sections.
    code = subprocess.run(["objdump", "-d", "-r", "-s", "--no-show-raw-insn", made],
                          check=True, text=True, capture_output=True).stdout
    return code.replace(made, "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--build", required=True, type=os.path.abspath)
    asked = parser.parse_args()
    asked.work = os.path.join(asked.build, "steps_vanish")
    wrong, count = check_names()
    without = os.path.join(asked.work, "without")
    copy_without_steps(without)
    off = make_switch(os.path.join(asked.work, "off"), "false")
    on = make_switch(os.path.join(asked.work, "on"), "true")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        plain = list(pool.map(lambda path: disassembled(asked, without, off, path), DATA_PATH))
        quiet = list(pool.map(lambda path: disassembled(asked, PROJECT, off, path), DATA_PATH))
    taken = disassembled(asked, PROJECT, on, DATA_PATH[-1])
    for path, one, other in zip(DATA_PATH, plain, quiet):
        if one != other:
            wrong.append(f"{path}: its code is not what it is without steps")
        if "pass_step" in other or not one:
            wrong.append(f"{path}: a step is left")
    if taken == quiet[-1] or "pass_step" not in taken:
        wrong.append(f"{DATA_PATH[-1]}: steps make no difference where they are taken")
    for line in wrong:
        print(line)
    lines = sum(len(one.split("\n")) for one in quiet)
    print(f"steps_vanish: {count} names, {len(DATA_PATH)} sources, {lines} lines of code compared,"
          f" {len(wrong)} to mend")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
