"""Tells loudly which tests did not run, and why, from the JUnit report that ctest wrote."""

import os
import re
import sys
import xml.etree.ElementTree as ElementTree


def reason_of(case):
    """What the test itself said; GoogleTest prints 'FILE:LINE: Skipped' and the reason below it."""
    output = case.findtext("system-out") or ""
    said = re.search(r"^\S+:\d+: Skipped\n(.*?)^\[  SKIPPED \]", output, re.MULTILINE | re.DOTALL)
    text = said.group(1) if said else output
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if said:
        return " ".join(lines) or "no reason given"
    skipped = case.find("skipped")
    message = skipped.get("message", "") if skipped is not None else ""
    return lines[-1] if lines else message or "no reason given"


def main():
    if not os.path.exists(sys.argv[1]):
        return  # ctest ran nothing, and has said so
    cases = list(ElementTree.parse(sys.argv[1]).getroot().iter("testcase"))
    skipped = [(case.get("name"), reason_of(case)) for case in cases if case.get("status") == "notrun"]
    skipped += [(case.get("name"), "disabled") for case in cases if case.get("status") == "disabled"]
    if not skipped:
        print("\nNo test was skipped.")
        return
    print(f"\n!!! {len(skipped)} TESTS WERE SKIPPED, so what they promise is not checked by this run:")
    by_reason = {}
    for name, reason in skipped:
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        print(f"  {reason} ({len(names)}):")
        for name in names:
            print(f"    {name}")
    print()


main()
