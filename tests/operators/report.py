"""What the Python tests share: a result file beside those of the GoogleTest programs, which scripts/count_tests.py adds up."""
import os
from xml.sax.saxutils import quoteattr


def write_xml(suite, cases):
    """`cases`: (name, problem or "", reason for not being run or ""). Written where GTEST_OUTPUT asks for it."""
    folder = os.environ.get("GTEST_OUTPUT", "")
    if not folder.startswith("xml:") or not folder.endswith("/"):
        return
    lines = ["<testsuites>", f"<testsuite name={quoteattr(suite)}>"]
    for name, problem, skipped in cases:
        inner = f"<failure message={quoteattr(problem)}/>" if problem else (
            f"<skipped message={quoteattr(skipped)}/>" if skipped else "")
        lines.append(f"<testcase classname={quoteattr(suite)} name={quoteattr(name)} "
                     f"status=\"{'notrun' if skipped else 'run'}\">{inner}</testcase>")
    lines += ["</testsuite>", "</testsuites>"]
    with open(os.path.join(folder.removeprefix("xml:"), suite + ".xml"), "w") as file:
        file.write("\n".join(lines) + "\n")
