"""Look at tools, packages, cache, disk and memory: what each verb needs, whether it is there, and how to get what is not.

Exit code 3 where something is missing that a verb cannot do without; what only some options need is marked as optional.
"""

import argparse

from ternbin.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_json(parser)


def call(args: argparse.Namespace) -> int:
    from ternbin import api, results

    report = api.diagnose()
    for finding in report["findings"]:
        state = "ok" if finding["ok"] else "optional" if finding["optional"] else "missing"
        needs = f"  [{', '.join(finding['verbs'])}]" if finding["verbs"] else ""
        advice = "" if finding["ok"] else f": {finding['install']}"
        print(f"{state:9}{finding['name']:22} {finding['found']}{advice}{needs}")
    print()
    for verb, missing in report["verbs"].items():
        print(f"{verb:12}{'ready' if not missing else 'needs ' + ', '.join(missing)}")
    if args.json:
        results.write_json(args.json, report)
    return 0 if report["ready"] else 3
