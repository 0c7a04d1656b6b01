#!/usr/bin/env python3
"""Counts the results that the test programs left as XML in a folder, and says which tests were skipped and why."""
import collections
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

passed = failed = 0
skipped = collections.Counter()
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.xml")):
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None:
            failed += 1
            print(f"FAILED {case.get('classname')}.{case.get('name')}")
        elif case.get("result") == "skipped" or case.find("skipped") is not None:
            message = case.find("skipped")
            reason = (message.get("message") or "") if message is not None else ""
            lines = reason.strip().splitlines() or ["no reason given"]
            skipped[lines[-1].removeprefix("not run: ")] += 1
        elif case.get("status") == "run":
            passed += 1
print(f"{passed} tests passed, {failed} failed, {sum(skipped.values())} not run")
for reason, count in skipped.most_common():
    print(f"  not run: {count} × {reason}")
sys.exit(0 if failed == 0 and passed > 0 else 1)
