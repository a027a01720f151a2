"""How each client's code is run, and where what it needs comes from."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from clients import installing
from tests import tools

PHP = "/usr/share/php"
GO = "/usr/share/gocode"
RUN_SECONDS = 120.0


@frozen
class Ran:
    """What became of one run."""

    status: int
    said: str


Prepare = Callable[[Path], tuple[Sequence[str], Mapping[str, str]]]
"""Makes the folder with the files ready; returns the command to run there, and what it needs in its environment."""


def run(title: str, folder: Path, files: Mapping[str, str], authority: Path | None) -> Ran:
    """Run the client's code in ``folder``; it trusts the certificates of ``authority``, or the system's when there is none."""
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    command, more = CLIENTS[title](folder)
    # Nobody's settings but those of the page count: no ~/.curlrc, no ~/.swaksrc, no CA file of this machine's.
    env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": str(folder), **more}
    if authority is not None:
        env |= {"SSL_CERT_FILE": str(authority), "NODE_EXTRA_CA_CERTS": str(authority)}
    done = subprocess.run(  # noqa: S603 - the page's own code
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=RUN_SECONDS,
        check=False,
    )
    return Ran(done.returncode, done.stdout)


def _shell(*needed: tuple[str, str]) -> Prepare:
    def prepare(folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        for tool, package in needed:
            tools.need(tool, package)
        return ["/bin/sh", "-e", "send.sh"], {}

    return prepare


def _swaks(folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    tools.need_perl("Net::SSLeay", "libnet-ssleay-perl")
    return _shell(("swaks", "swaks"))(folder)


def _python(folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    return [sys.executable, "send.py"], {}


def _django(folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    python = installing.need_python("django~=5.2.0")
    # As manage.py begins.
    run_it = "import django, runpy; django.setup(); runpy.run_path('send.py')"
    return [str(python), "-c", run_it], {"DJANGO_SETTINGS_MODULE": "settings"}


def _node(folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    (folder / "node_modules").symlink_to(installing.need_node("nodemailer@^10"))
    return [tools.need("node", "nodejs"), "send.mjs"], {}


def _php(autoload: str, package: str) -> Prepare:
    def prepare(folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        library = installing.need_file(autoload, package)
        (folder / "vendor").mkdir()
        (folder / "vendor" / "autoload.php").write_text(f"<?php require '{library}';\n")
        return [tools.need("php", "php-cli"), "send.php"], {}

    return prepare


def _ruby(folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    ruby = tools.need("ruby", "ruby")
    installing.need_file("/usr/lib/ruby/vendor_ruby/mail.rb", "ruby-mail")
    return [ruby, "send.rb"], {}


def _go(*packages: tuple[str, str]) -> Prepare:
    def prepare(folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        go = tools.need("go", "golang-go")
        for path, package in packages:
            installing.need_file(f"{GO}/src/{path}", package)
        # As Debian builds Go programs: from its own packages, without modules and so without a proxy.
        env = {"GO111MODULE": "off", "GOPATH": GO, "GOCACHE": str(installing.HERE / "go"), "GOFLAGS": "", "CGO_ENABLED": "0"}
        return [go, "run", *sorted(file.name for file in folder.glob("*.go"))], env

    return prepare


CLIENTS: Mapping[str, Prepare] = {
    "swaks": _swaks,
    "Python's smtplib": _python,
    "Django": _django,
    "Nodemailer": _node,
    "PHPMailer": _php(f"{PHP}/libphp-phpmailer/autoload.php", "libphp-phpmailer"),
    "Symfony Mailer": _php(f"{PHP}/Symfony/Component/Mailer/autoload.php", "php-symfony-mailer"),
    "Ruby's mail": _ruby,
    "Go's net/smtp": _go(),
    "gomail": _go(("gopkg.in/mail.v2", "golang-gopkg-mail.v2-dev")),
    "curl": _shell(("curl", "curl")),
    "msmtp": _shell(("msmtp", "msmtp")),
}
"""Each client by the title of its section."""
