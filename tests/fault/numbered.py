"""The numbered cases of failures (slots 1 to 12, segments and nodes 13 to 26, signals and wakeups
27 to 36, resources 37 to 45, pipes 46 to 51) have a test each: a TEST_CASE whose name begins with
"case N:". A number that no test bears fails this one, and so does one that is none of them."""

import os
import re
import sys

LAST = 51

HERE = os.path.dirname(os.path.abspath(__file__))
NAME = re.compile(r'TEST_CASE\(\s*"case (\d+):')


def main():
    found = set()
    for name in sorted(os.listdir(HERE)):
        if name.endswith((".cpp", ".hpp")):
            with open(os.path.join(HERE, name), encoding="utf-8") as source:
                found |= {int(number) for number in NAME.findall(source.read())}
    missing = set(range(1, LAST + 1)) - found
    unknown = found - set(range(1, LAST + 1))
    for number in sorted(missing):
        print(f"case {number} has no test: a TEST_CASE whose name begins with 'case {number}:'")
    for number in sorted(unknown):
        print(f"case {number} is none of the 1 to {LAST} that are known")
    print(f"{len(found)} of {LAST} numbers have tests")
    return 1 if missing or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
