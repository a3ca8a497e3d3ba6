#!/usr/bin/env python3
"""Style is a test: the rules that no compiler checks. Says `file:line: what is wrong` for each
violation, and fails if there was one.

  tests/tidy/tidy.py [ROOT]

The first part is the design's table of layers, as data: a room's line says which rooms it may
include, and which libraries from outside. CMake links the same edges; both the sources and the DEPS
of bus_room are held against this one table. A file in no room, or a header that nobody here has
heard of, is refused too: the table is changed knowingly or not at all.
"""

import json
import os
import re
import subprocess
import sys

import tree

COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70

# room: (rooms that it may include, libraries that it may include). A room is a folder and what lies
# below it, the longest name wins; it may always include itself, std and Linux.
LIBRARY = ("bus/base", "bus/topic", "bus/link", "bus/codec", "bus/route", "bus/node")
TRANSPORTS = tuple(f"transports/{t}" for t in ("inproc", "shm", "pipe", "zmq", "staging"))
BELOW_TRANSPORTS = ("bus/base", "bus/link", "schemas")
ABOVE_ALL = LIBRARY + TRANSPORTS + ("bus", "transports", "schemas", "schemas/demo")
EVERY_LIBRARY = ("asio", "protobuf", "zmq", "xxhash", "fmt", "CLI11", "json", "catch2", "nng",
                 "benchmark", "sanitizer", "hiredis", "nats", "cyclone")
LAYERS = {
    "bus/base": ((), ("seccomp",)),
    "bus/topic": (("bus/base",), ()),
    "bus/link": (("bus/base",), ()),
    "schemas": ((), ("protobuf",)),
    "schemas/demo": (("schemas",), ("protobuf",)),
    "bus/codec": (("bus/base", "bus/link"), ("protobuf",)),
    "bus/route": (("bus/base", "bus/topic", "bus/link", "schemas"), ("protobuf",)),
    "transports/inproc": (BELOW_TRANSPORTS, ("protobuf",)),
    "transports/shm": (BELOW_TRANSPORTS, ("protobuf",)),
    "transports/pipe": (BELOW_TRANSPORTS, ("protobuf",)),
    "transports/zmq": (BELOW_TRANSPORTS, ("protobuf", "zmq")),
    "transports/staging": (BELOW_TRANSPORTS, ("protobuf", "xxhash")),
    "bus/node": (LIBRARY + ("schemas",), ("protobuf", "asio")),
    "bus": (LIBRARY, ()),  # bus/bus.hpp, the one public include
    "transports": (TRANSPORTS + ("bus/base", "bus/link"), ()),  # standard.hpp
    "bus/tool": (LIBRARY + TRANSPORTS + ("bus", "transports", "schemas"),
                 ("asio", "protobuf", "fmt", "CLI11", "json", "xxhash")),
    "examples": (ABOVE_ALL, ("asio", "protobuf", "fmt", "CLI11", "json")),
    "tests": (ABOVE_ALL + ("bus/tool", "examples"), EVERY_LIBRARY),
    "docker": (ABOVE_ALL, EVERY_LIBRARY),
}

# How the first part of an <include> names its library.
OUTSIDE = {
    "asio": "asio", "asio.hpp": "asio", "google/protobuf": "protobuf", "zmq.h": "zmq",
    "zmq.hpp": "zmq", "zmq_addon.hpp": "zmq", "xxhash.h": "xxhash", "fmt": "fmt",
    "CLI": "CLI11", "nlohmann": "json", "catch2": "catch2", "nng": "nng",
    "benchmark": "benchmark", "sanitizer": "sanitizer", "hiredis": "hiredis", "nats": "nats",
    "dds": "cyclone", "seccomp.h": "seccomp",
}
LINUX_FOLDERS = ("sys/", "linux/", "netinet/", "arpa/", "net/", "asm/")
LINUX_HEADERS = set("""
assert cpuid ctype cxxabi dirent dlfcn elf emmintrin endian errno execinfo fcntl features float
fnmatch ftw getopt glob grp ifaddrs immintrin inttypes libgen limits link locale malloc math
mqueue netdb paths poll pthread pty pwd regex sched semaphore setjmp signal spawn stdarg stddef
stdint stdio stdlib string strings syscall sysexits syslog termios threads time uchar ucontext
unistd utime wait wchar wordexp x86intrin
""".split())

# Folders whose children are the rooms that need a README.md (the rooms of tests share one).
HOUSES = ("bus", "transports")


def room_of(path):
    """The longest room of the table that holds this path, or None."""
    folder = os.path.dirname(path)
    while folder:
        if folder in LAYERS:
            return folder
        folder = os.path.dirname(folder)
    return None


def is_child_of_house(path):
    """bus/new/x.hpp: a room that the table should know, not a file of the room bus."""
    parts = path.split("/")
    return len(parts) > 2 and parts[0] in ("bus", "transports")


class report:
    """Collects violations."""

    def __init__(self):
        self.lines = []

    def add(self, path, line, what):
        self.lines.append(f"{path}:{line}: {what}")


def library_of(name):
    """The library that <name> belongs to: '' for std and Linux, None if unknown."""
    if re.fullmatch(r"[a-z_0-9]+", name) or name.startswith(LINUX_FOLDERS):
        return ""
    if name.endswith(".h") and name[:-2] in LINUX_HEADERS:
        return ""
    for prefix, library in OUTSIDE.items():
        if name == prefix or name.startswith(prefix + "/"):
            return library
    return None


def check_include(out, path, number, name):
    room = room_of(path)
    if name.split("/")[0] in ("bus", "transports", "schemas", "examples", "tests"):
        target = room_of(name)
        if target is None or target in ("bus", "transports") and is_child_of_house(name):
            out.add(path, number, f'"{name}" lies in no room of the table in tests/tidy/tidy.py')
        elif target != room and target not in LAYERS[room][0]:
            out.add(path, number, f'{room} may not include {target} ("{name}")')
        return
    library = library_of(name)
    if library is None:
        out.add(path, number, f'"{name}" is unknown: includes go from the root, and a new library '
                              "is named in tests/tidy/tidy.py")
    elif library and library not in LAYERS[room][1]:
        out.add(path, number, f"{room} may not include the library {library} (<{name}>)")


def check_cpp(out, path, lines):
    room = room_of(path)
    if room is None or room in ("bus", "transports") and is_child_of_house(path):
        out.add(path, 1, "lies in no room of the table in tests/tidy/tidy.py")
        return
    for number, line in enumerate(lines, 1):
        include = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
        if include:
            check_include(out, path, number, include[1])
        if tree.is_header(path) and re.match(r"\s*using\s+namespace\b", line):
            out.add(path, number, "a header has no `using namespace`: whoever includes it gets it")
    if tree.is_header(path) and not any(line.strip() == "#pragma once" for line in lines):
        out.add(path, 1, "a header says #pragma once")


GLOBAL_COMMANDS = ("add_compile_options|add_compile_definitions|add_definitions|add_link_options"
                   "|include_directories|link_directories|link_libraries")


def check_cmake(out, path, lines):
    for number, line in enumerate(lines, 1):
        code = line.split("#")[0]
        if re.search(r"\bfile\s*\(\s*GLOB", code, re.IGNORECASE):
            out.add(path, number, "no globs: CMake would not see a new file; name it")
        if re.match(rf"\s*({GLOBAL_COMMANDS})\s*\(", code, re.IGNORECASE) or re.search(
                r"\bset\s*\(\s*CMAKE_(C|CXX)_FLAGS", code, re.IGNORECASE):
            out.add(path, number, "no global flags: they belong to a target, or to a preset")
    check_edges(out, path, "\n".join(line.split("#")[0] for line in lines))


def check_edges(out, path, text):
    """The DEPS of bus_room, against the same table."""
    rooms = {room.replace("/", "_"): room for room in LAYERS}
    rooms["transports_standard"] = "transports"
    for call in re.finditer(r"\bbus_room\s*\(\s*(\w+)([^)]*)\)", text):
        room = rooms.get(call[1])
        words = call[2].split()
        if room is None or "DEPS" not in words:
            continue
        for dep in words[words.index("DEPS") + 1:]:
            if dep in ("SOURCES", "LIBS", "NO_INSTALL"):
                break
            target = rooms.get(dep)
            if target and target != room and target not in LAYERS[room][0]:
                line = text.count("\n", 0, call.start()) + 1
                out.add(path, line, f"{room} may not depend on {target} (DEPS {dep})")


def check_text(out, path, lines):
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            out.add(path, number, f"{len(line)} columns; at most {COLUMNS_MAX}")
        # tests/tidy has to name what it refuses
        unfinished = re.search(r"\b(TODO|FIXME|XXX)\b|\b[Ff]or now\b", line)
        if unfinished and not path.startswith("tests/tidy/"):
            out.add(path, number, f"{unfinished[0]}: finish it, or leave it out")


def check_functions(out, root, paths):
    """Lengths, by ctags, which also reads code that does not compile. Catch2's TEST_CASE is a
    function to us, so ctags is told to see one."""
    if not paths:
        return
    catch2 = ("TEST_CASE", "TEMPLATE_TEST_CASE", "TEMPLATE_LIST_TEST_CASE", "SCENARIO")
    macros = [f"-D{name}(...)=void test_case()" for name in catch2]
    tags = subprocess.run(
        ["ctags", "--options=NONE", "--languages=C++", "--kinds-C++=f", "--fields=+ne",
         "--output-format=json", *macros, "-f", "-", "-L", "-"],
        cwd=root, input="\n".join(paths), text=True, check=True, capture_output=True)
    for line in tags.stdout.splitlines():
        tag = json.loads(line)
        length = tag.get("end", tag["line"]) - tag["line"] + 1
        if length > FUNCTION_LINES_MAX:
            out.add(tag["path"], tag["line"],
                    f"{tag['name']} has {length} lines; at most {FUNCTION_LINES_MAX}")


def check_rooms_have_readme(out, paths):
    seen = {}
    for path in paths:
        parts = path.split("/")
        if not path.endswith((".hpp", ".cpp", ".proto", ".py")) or len(parts) < 2:
            continue
        depth = 2 if parts[0] in HOUSES and len(parts) > 2 else 1
        seen.setdefault("/".join(parts[:depth]), path)
    for room in sorted(seen):
        if room not in HOUSES and f"{room}/README.md" not in paths:
            out.add(f"{room}/README.md", 1, "missing: a room says in 5 to 25 lines what it is")


def is_script(path, lines):
    return path.endswith(".py") or bool(lines) and lines[0].startswith("#!")


def check(root):
    """All violations in the tree below root, as lines of text."""
    out = report()
    paths = tree.files(root)
    for path in paths:
        try:
            with open(os.path.join(root, path), encoding="utf-8") as file:
                lines = file.read().split("\n")
        except UnicodeDecodeError:
            if tree.is_cpp(path) or tree.is_cmake(path):
                out.add(path, 1, "not UTF-8")
            continue
        if tree.is_cpp(path):
            check_cpp(out, path, lines)
        if tree.is_cmake(path):
            check_cmake(out, path, lines)
        if (tree.is_cpp(path) or tree.is_cmake(path) or path.endswith(".proto")
                or is_script(path, lines)):
            check_text(out, path, lines)
    check_functions(out, root, [path for path in paths if tree.is_cpp(path)])
    check_rooms_have_readme(out, set(paths))
    return out.lines


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else tree.PROJECT
    violations = check(root)
    for line in violations:
        print(line)
    if violations:
        print(f"tidy: {len(violations)} to mend; the rules are in tests/tidy/README.md")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
