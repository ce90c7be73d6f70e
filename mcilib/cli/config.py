"""`mcilib config`: the configuration file, explained: a commented example, its JSON schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcilib.cli._output import print_json
from mcilib.cli._parser import default_words
from mcilib.config import OPTIONS, SECTIONS, Option, as_duration

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers

#: What a reader of the example sees where an option has no default.
_SAMPLES: dict[str, Any] = {
    "agent.state": "state",
    "agent.sources": ["pointer", "keyboard"],
    "seal.recipients_file": "recipients.txt",
    "upload.endpoint": "https://collect.example.org",
    "upload.token_file": "token",
    "upload.ca_file": "ca.pem",
    "upload.client_cert": "device.pem",
    "upload.client_key": "device.key",
    "upload.proxy": "http://proxy.example.org:3128",
    "adapt.quiet_hours": ["mon-fri 22:00-07:00", "sat,sun 00:00-24:00"],
    "adapt.rules": ["battery < 30 %: motion none, upload none", "metered and not saver: bytes 300 KiB"],
    "consent.policy_file": "policy.txt",
    "receiver.token_file": "token",
    "receiver.operator_token_file": "operator-token",
    "receiver.tls_cert": "cert.pem",
    "receiver.tls_key": "key.pem",
    "receiver.retention_days": 365,
    "grant.operator": "Example Lab",
    "grant.purpose": "train models that use computers",
    "grant.scope": ["pointer", "keys"],
    "grant.policy": "policy.txt",
    "grant.language": "en",
    "grant.expires": "30d",
}


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "config",
        help="print a commented configuration file, or its JSON schema",
        description="""\
Prints what can stand in the TOML file of --config. Flags win over the file, the file over the defaults.
Relative paths in the file are relative to the file.""",
        epilog="""\
example:
  mcilib config --example > mcilib.toml

exit codes: 0 done; 2 a flag is wrong""",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--example", action="store_true", help="a file with every option at its default (this is the default)"
    )
    which.add_argument("--schema", action="store_true", help="the JSON schema, for editors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.schema:
        print_json(schema())
    else:
        print(example(), end="")
    return 0


def example() -> str:
    """A TOML file with every option commented out at its default."""
    lines = ["# mcilib: every option at its default. Remove the # in front of what you change."]
    for section, words in SECTIONS.items():
        lines += ["", f"# {words}", f"[{section}]"]
        for option in _in(section):
            value = option.default if option.default is not None else _SAMPLES[option.name]
            remark = (
                option.must_be() if option.default is not None else f"{option.must_be()}; {option.fallback}"
            )
            lines += [f"# {option.words} Must be {remark}.", f"#{option.key} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """JSON schema (2020-12) of the file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mcilib configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            section: {
                "type": "object",
                "description": words,
                "additionalProperties": False,
                "properties": {option.key: _schema(option) for option in _in(section)},
            }
            for section, words in SECTIONS.items()
        },
    }


def reference() -> str:
    """The table of docs/reference/configuration.md."""
    lines = []
    for section, words in SECTIONS.items():
        lines += [
            f"### [{section}]",
            "",
            words,
            "",
            "| key | value | default | flag | what it does |",
            "|---|---|---|---|---|",
        ]
        for option in _in(section):
            default = (
                default_words(option).removeprefix("default ")
                if option.default is None
                else _toml(option.default)
            )
            flag = f"`{option.flag}`" if option.flag else ""
            lines.append(f"| `{option.key}` | {option.must_be()} | {default} | {flag} | {option.words} |")
        lines.append("")
    return "\n".join(lines)


def _in(section: str) -> list[Option]:
    return [option for option in OPTIONS.values() if option.section == section]


def _schema(option: Option) -> dict[str, Any]:
    found: dict[str, Any] = {"description": option.words}
    if option.kind in ("count", "bytes", "seconds", "number"):
        found |= {"type": "integer" if option.kind in ("count", "bytes") else "number"}
        found |= {"minimum": option.low, "maximum": option.high}
    elif option.kind == "names":
        items = {"type": "string", "enum": list(option.choices)}
        found |= {"type": "array", "minItems": 0 if option.may_be_empty else 1, "items": items}
    elif option.kind == "texts":
        items = {"type": "string", "pattern": r"\S"}
        found |= {"type": "array", "minItems": 0 if option.may_be_empty else 1, "items": items}
    elif option.kind == "choice":
        found |= {"type": "string", "enum": list(option.choices)}
    elif option.kind == "duration":
        found |= {"type": "string", "pattern": r"^\s*[0-9]{1,12}(\.[0-9]{1,6})?[smhd]\s*$"}
        found["description"] += f" From {as_duration(option.low)} to {as_duration(option.high)}."
    else:
        found |= {"type": "string", "pattern": r"\S"}
    if option.default is not None:
        found["default"] = option.default
    return found


def _toml(value: Any) -> str:
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    # A JSON string, number or list of strings is a TOML one too.
    return json.dumps(str(value) if isinstance(value, Path) else value)
