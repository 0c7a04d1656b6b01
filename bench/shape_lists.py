"""The shape lists and the groups of their entries; needs PyYAML alone."""
import fnmatch
import glob
import json
import os

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
GROUPS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "groups.yaml")


def identity(entry):
    """Entries with the same identity are one problem."""
    parts = [entry.get(name) or None for name in ("op", "dims", "dtype", "epilogue", "params", "b_layout", "gated")]
    return json.dumps(parts, sort_keys=True)


def one_or_more(value):
    return value if isinstance(value, list) else [value]


def matches(patterns, text):
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in one_or_more(patterns))


class ShapeLists:
    """Every timing entry (count > 0) of a folder of shape lists, and of the lists that the groups name besides. Entries with one
    identity are one problem."""

    def __init__(self, folder, groups=GROUPS):
        with open(groups) as file:
            self.rules = yaml.load(file, LOADER)
        more = [os.path.join(os.path.dirname(groups), path) for path in self.rules.get("more_lists", [])]
        self.entries = []
        for path in sorted(glob.glob(os.path.join(folder, "*.yaml"))) + [path for path in more if os.path.exists(path)]:
            with open(path) as file:
                found = yaml.load(file, LOADER)["entries"]
            self.entries += [entry | {"file": os.path.basename(path)[:-5]} for entry in found if entry.get("count", 0) > 0]
        files = {entry["file"] for entry in self.entries}
        self.groups = [group for group in self.rules["groups"] if group.get("needs", "") in files | {""}]
        self.problem_of = {entry["id"]: identity(entry) for entry in self.entries}
        self.ids = {}  # identity -> ids
        for entry in self.entries:
            self.ids.setdefault(self.problem_of[entry["id"]], []).append(entry["id"])

    def counts(self, rules):
        """{problem: launches} of the entries that the rules of a group select."""
        chosen = {}
        for rule in rules:
            for entry in self.entries:
                if not matches(rule["id"], entry["id"]) or entry["op"] not in one_or_more(rule.get("op", entry["op"])):
                    continue
                if "file" in rule and rule["file"] != entry["file"]:
                    continue
                chosen[entry["id"]] = rule.get("count", entry["count"])
        total = {}
        for name, count in chosen.items():
            if count:
                total[self.problem_of[name]] = total.get(self.problem_of[name], 0) + count
        return total

    def problems_of(self, group):
        """Problems whose times a group needs, in the order of the lists."""
        needed = self.counts(group["entries"]) | self.counts(group.get("vendor_entries", []))
        return [problem for problem in self.ids if problem in needed]

    def wants(self, what, problem):
        """Whether an entry of the problem is named by the list `what` of the groups' file."""
        return any(matches(self.rules.get(what, []), name) for name in self.ids.get(problem, []))

    def in_order(self):
        """All problems, those of the groups first."""
        first = [problem for group in self.groups for problem in self.problems_of(group)]
        return list(dict.fromkeys(first + list(self.ids)))
