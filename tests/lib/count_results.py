#!/usr/bin/python3
"""Add up JUnit XML files: print "PASSED FAILED SKIPPED", then a line for each failure, on stderr."""

import sys
import xml.etree.ElementTree as ElementTree


def count(path):
    passed = failed = skipped = 0
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        outcomes = {child.tag for child in case}
        if outcomes & {"failure", "error"}:
            failed += 1
            print(f"FAILED {case.get('classname', '')} {case.get('name')}", file=sys.stderr)
        elif "skipped" in outcomes:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main():
    sums = [0, 0, 0]
    for path in sys.argv[1:]:
        try:
            counts = count(path)
        except (OSError, ElementTree.ParseError) as error:
            print(f"FAILED {path}: {error}", file=sys.stderr)
            counts = (0, 1, 0)
        sums = [a + b for a, b in zip(sums, counts)]
    print(*sums)


main()
