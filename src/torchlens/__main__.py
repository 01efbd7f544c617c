"""The command ``torchlens``, also as ``python -m torchlens``."""

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    from torchlens_core.testing.conformance import command as conformance

    parser = argparse.ArgumentParser(prog="torchlens", description="See, save and steer the inside of any network.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    about = "run the conformance kit on a backend, and print a table"
    command = commands.add_parser("conformance", help=about, description=about)
    conformance.add_arguments(command)
    command.set_defaults(run=conformance.main)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
