"""The published SDKs as judges of our requests: small programs that each verify and parse what an endpoint got, by their own code.

Each reads lines of JSON ``{"secret", "headers", "body"}`` (the body in base64) and prints a line for each: the name of the event as its SDK
gives it out, or what it said against it.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from clients import installing
from tests import tools
from tests.system.endpoint import Got

_PYTHON = """
import base64, json, sys
{imports}
for line in sys.stdin:
    told = json.loads(line)
    body = base64.b64decode(told["body"])
    try:
        event = {verify}
        print(event["event"])
    except Exception as error:
        print("refused:", type(error).__name__, error)
"""

_NODE = """
const sdk = require("{package}");
const lines = require("fs").readFileSync(0, "utf8").split("\\n").filter(Boolean);
for (const line of lines) {{
  const told = JSON.parse(line);
  const body = Buffer.from(told.body, "base64");
  try {{
    const event = {verify};
    console.log(event.event);
  }} catch (error) {{
    console.log("refused: " + error);
  }}
}}
"""

_SDKS = {
    "lettermint for Python": ("from lettermint import Webhook", 'Webhook(told["secret"]).verify(body, told["headers"])'),
    "standardwebhooks for Python": ("from standardwebhooks import Webhook", 'Webhook(told["secret"]).verify(body, told["headers"])'),
    "lettermint for Node": ("lettermint", "new sdk.Webhook(told.secret).verifyHeaders(told.headers, body)"),
    "standardwebhooks for Node": ("standardwebhooks", "new sdk.Webhook(told.secret).verify(body, told.headers)"),
}

JUDGES = tuple(_SDKS)


@frozen
class Judge:
    """One SDK, installed from its registry."""

    name: str

    def verdicts(self, requests: Sequence[Got], secret: str) -> list[str]:
        """What it says of each request."""
        lines = [
            json.dumps({"secret": secret, "headers": dict(got.headers), "body": base64.b64encode(got.body).decode()}) for got in requests
        ]
        done = subprocess.run(self._command(), input="\n".join(lines), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def _command(self) -> list[str]:
        first, verify = _SDKS[self.name]
        package = self.name.partition(" ")[0]
        if self.name.endswith("Python"):
            return [str(installing.need_python(package)), "-c", _PYTHON.format(imports=first, verify=verify)]
        modules = installing.need_node(package)
        program = Path(modules).parent / "judge.js"
        program.write_text(_NODE.format(package=first, verify=verify))
        return [tools.need("node", "nodejs"), str(program)]
