"""What came of a run of schemathesis, in the form in which tests/run counts."""

import json
import sys

# Operations that prepare.py leaves out.
LEFT_OUT = 1

path, code, alive = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "true"
try:
    with open(path) as file:
        report = json.load(file)
except (OSError, ValueError):
    report = {}
operations = report.get("operations", {})
cases = report.get("test_cases", {})
broken = {name for failure in report.get("failures", []) for name in failure.get("operations", [])}
problems = [] if alive else ["the node ended"]
if not report.get("complete"):
    problems.append("schemathesis did not come to its end")
# Left out is what prepare.py says, and no more.
left_out = operations.get("total", 0) - operations.get("selected", 0)
if operations.get("tested") != operations.get("selected") or left_out > LEFT_OUT or operations.get("errored"):
    problems.append(f"not every operation was tested: {operations}")
if code != 0 and not broken:
    problems.append(f"schemathesis ended with {code}")
for problem in problems:
    print(f"error: {problem}")
passed = max(operations.get("tested", 0) - len(broken), 0)
failed = len(broken) + len(problems)
print(f"{cases.get('generated', 0)} requests and sequences, {cases.get('unique_failures', 0)} kinds of failure, seed {report.get('seed')}")
print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; operations of the description")
sys.exit(1 if failed else 0)
