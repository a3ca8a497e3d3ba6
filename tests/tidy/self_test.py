#!/usr/bin/env python3
"""Each rule of tidy.py refuses its violation, names file and line, and lets the near miss pass."""

import os
import subprocess
import sys
import tempfile
import unittest

import tidy

HERE = os.path.dirname(os.path.abspath(__file__))
HEADER = "#pragma once\n"


def header(text):
    return HEADER + text


def violations(files):
    """What tidy says of a tree of these files; every room in it gets its README.md."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(text)
            room = "/".join(path.split("/")[:2 if path.split("/")[0] in tidy.HOUSES else 1])
            if os.path.isdir(os.path.join(root, room)) and room not in tidy.HOUSES:
                with open(os.path.join(root, room, "README.md"), "w", encoding="utf-8") as file:
                    file.write("a room\n")
        return tidy.check(root)


class refused(unittest.TestCase):
    def refuses(self, path, text, line, says):
        found = violations({path: text})
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith(f"{path}:{line}: "), found)
        self.assertIn(says, found[0])

    def accepts(self, path, text):
        self.assertEqual(violations({path: text}), [])

    def test_each_edge_that_the_layers_forbid(self):
        for path, include, says in (
                ("bus/base/a.hpp", '"bus/link/frame.hpp"', "bus/base may not include bus/link"),
                ("bus/base/a.hpp", "<google/protobuf/message.h>", "library protobuf"),
                ("bus/base/a.hpp", "<asio.hpp>", "library asio"),
                ("bus/base/a.hpp", "<fmt/core.h>", "library fmt"),
                ("bus/topic/a.hpp", '"bus/link/frame.hpp"', "bus/topic may not include bus/link"),
                ("bus/link/a.hpp", '"schemas/bus/card.pb.h"', "bus/link may not include schemas"),
                ("bus/link/a.hpp", "<google/protobuf/message.h>", "library protobuf"),
                ("bus/codec/a.hpp", '"bus/topic/topic.hpp"', "bus/codec may not include bus/topic"),
                ("bus/route/a.hpp", "<asio/io_context.hpp>", "library asio"),
                ("bus/route/a.hpp", '"transports/shm/shm.hpp"', "may not include transports/shm"),
                ("bus/node/a.hpp", '"transports/standard.hpp"', "may not include transports"),
                ("bus/node/a.hpp", '"transports/shm/shm.hpp"', "may not include transports/shm"),
                ("bus/bus.hpp", '"transports/standard.hpp"', "bus may not include transports"),
                ("transports/shm/a.hpp", '"transports/pipe/pipe.hpp"', "include transports/pipe"),
                ("transports/shm/a.hpp", '"bus/topic/topic.hpp"', "may not include bus/topic"),
                ("transports/shm/a.hpp", '"bus/route/route.hpp"', "may not include bus/route"),
                ("transports/shm/a.hpp", '"bus/codec/plain.hpp"', "may not include bus/codec"),
                ("transports/shm/a.hpp", '"bus/node/node.hpp"', "may not include bus/node"),
                ("transports/shm/a.hpp", "<zmq.hpp>", "library zmq"),
                ("transports/zmq/a.hpp", "<asio.hpp>", "library asio"),
                ("transports/zmq/a.hpp", '"schemas/demo/quake.pb.h"', "include schemas/demo"),
                ("transports/standard.hpp", '"bus/node/node.hpp"', "may not include bus/node"),
                ("bus/tool/a.cpp", '"examples/x.hpp"', "bus/tool may not include examples"),
                ("bus/tool/a.cpp", "<catch2/catch.hpp>", "library catch2"),
                ("examples/a.cpp", '"tests/x.hpp"', "examples may not include tests")):
            with self.subTest(path=path, include=include):
                text = header(f"#include {include}\n")
                self.refuses(path, text, 2, says)

    def test_an_edge_in_angle_brackets_is_the_same_edge(self):
        self.refuses("bus/base/a.hpp", header("#include <bus/bus.hpp>\n"), 2, "may not include bus")

    def test_edges_that_the_layers_allow_pass(self):
        for path, include in (
                ("bus/base/a.hpp", "<sys/mman.h>"), ("bus/base/a.hpp", "<semaphore.h>"),
                ("bus/link/a.hpp", '"bus/base/fd.hpp"'), ("bus/link/a.hpp", '"bus/link/b.hpp"'),
                ("bus/codec/a.hpp", "<google/protobuf/message.h>"),
                ("transports/zmq/a.hpp", "<zmq.hpp>"), ("bus/node/a.hpp", "<asio.hpp>"),
                ("transports/standard.hpp", '"transports/shm/shm.hpp"'),
                ("tests/unit/a.cpp", '"bus/tool/a.hpp"'), ("tests/bench/a.cpp", "<nng/nng.h>"),
                ("examples/a.cpp", "<bus/bus.hpp>")):
            with self.subTest(path=path, include=include):
                self.accepts(path, header(f"#include {include}\n"))

    def test_an_include_not_from_the_root(self):
        self.refuses("bus/base/a.hpp", header('#include "fd.hpp"\n'), 2, "from the root")

    def test_a_library_that_nobody_named(self):
        self.refuses("tests/unit/a.cpp", "#include <boost/any.hpp>\n", 1, "unknown")

    def test_a_file_in_no_room(self):
        self.refuses("bus/gadgets/a.hpp", HEADER, 1, "no room")
        self.refuses("bus/base/a.hpp", header('#include "bus/gadgets/b.hpp"\n'), 2, "no room")

    def test_deps_that_the_layers_forbid(self):
        self.refuses("bus/link/CMakeLists.txt",
                     "# a room\nbus_room(bus_link\n  SOURCES a.cpp\n  DEPS bus_base bus_topic)\n",
                     2, "bus/link may not depend on bus/topic")
        self.accepts("bus/link/CMakeLists.txt", "bus_room(bus_link DEPS bus_base)\n")

    def test_a_line_of_101_columns(self):
        self.refuses("bus/base/a.cpp", "\n//" + "x" * 99 + "\n", 2, "101 columns")
        self.accepts("bus/base/a.cpp", "//" + "x" * 98 + "\n")
        self.accepts("bus/base/a.cpp", "//" + "é" * 98 + "\n")

    def test_a_function_of_71_lines(self):
        def function(lines, opening="int long_one() {"):
            return "\n" + opening + "\n" + "  ;\n" * (lines - 2) + "}\n"
        self.refuses("bus/base/a.cpp", function(71), 2, "long_one has 71 lines")
        self.accepts("bus/base/a.cpp", function(70))
        test_case = function(71, 'TEST_CASE("a claim", "[tag]") {')
        self.refuses("tests/unit/a.cpp", test_case, 2, "71 lines")

    def test_unfinished_work(self):
        self.refuses("bus/base/a.cpp", "\n// TODO: more\n", 2, "TODO")
        self.refuses("bus/base/a.cpp", "// FIXME\n", 1, "FIXME")
        self.refuses("cmake/a.cmake", "# XXX\n", 1, "XXX")
        self.refuses("bus/base/a.cpp", "// for now, nothing\n", 1, "for now")
        self.accepts("bus/base/a.cpp", 'auto name = "bus-XXXXXX";\n')

    def test_a_header_without_pragma_once(self):
        self.refuses("bus/base/a.hpp", "int a();\n", 1, "#pragma once")

    def test_using_namespace_in_a_header(self):
        self.refuses("bus/base/a.hpp", header("\nusing namespace std;\n"), 3, "using namespace")
        self.accepts("bus/base/a.cpp", "using namespace std;\n")

    def test_cmake_globs_and_global_flags(self):
        self.refuses("cmake/a.cmake", "\nfile(GLOB x *.cpp)\n", 2, "no globs")
        self.refuses("CMakeLists.txt", "file(GLOB_RECURSE x *.cpp)\n", 1, "no globs")
        self.refuses("CMakeLists.txt", "add_compile_options(-O3)\n", 1, "no global flags")
        self.refuses("CMakeLists.txt", 'set(CMAKE_CXX_FLAGS "-O3")\n', 1, "no global flags")
        self.accepts("CMakeLists.txt", "# file(GLOB x *.cpp)\n")

    def test_a_room_without_readme(self):
        found = tidy.report()
        tree = {"bus/base/a.hpp", "bus/bus.hpp", "schemas/bus/a.proto"}
        tidy.check_rooms_have_readme(found, tree)
        self.assertEqual([line.split(": ")[0] for line in found.lines],
                         ["bus/base/README.md:1", "schemas/README.md:1"])

    def test_the_command_fails_and_counts(self):
        with tempfile.TemporaryDirectory() as root:
            with open(os.path.join(root, "a.cmake"), "w", encoding="utf-8") as file:
                file.write("# TODO\n")
            run = subprocess.run([sys.executable, "-B", os.path.join(HERE, "tidy.py"), root],
                                 capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("a.cmake:1: TODO", run.stdout)
        self.assertIn("1 to mend", run.stdout)

    def test_a_header_that_does_not_compile_alone(self):
        with tempfile.TemporaryDirectory() as root:
            for name, text in (("good", "#include <string>\n"), ("bad", "")):
                with open(os.path.join(root, f"{name}.hpp"), "w", encoding="utf-8") as file:
                    file.write(header(text + f"std::string {name}();\n"))
            run = subprocess.run(
                [sys.executable, "-B", os.path.join(HERE, "headers.py"), "--compiler", "c++",
                 "--build", os.path.join(root, "build"), "--root", root],
                capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("bad.hpp:2", run.stdout)
        self.assertNotIn("good.hpp:2", run.stdout)

    def test_a_block_of_a_document_that_does_not_compile(self):
        with tempfile.TemporaryDirectory() as root:
            with open(os.path.join(root, "page.md"), "w", encoding="utf-8") as file:
                file.write("```cpp\n#include <string>\nstd::string good();\n```\n\n"
                           "```\nno language\n```\n\n```cpp\nstd::string bad();\n```\n")
            run = subprocess.run(
                [sys.executable, "-B", os.path.join(HERE, "documents.py"), "--compiler", "c++",
                 "--build", os.path.join(root, "build"), "--root", root],
                capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("page.md:11", run.stdout)
        self.assertNotIn("page.md:2", run.stdout)
        self.assertNotIn("page.md:7", run.stdout)


if __name__ == "__main__":
    unittest.main()
