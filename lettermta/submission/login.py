"""Logging in: credential checkers and the realm for a ``twisted.cred`` portal.

The password is a token of a project; the user name only has to be one of the configured ones. Whatever is wrong, the client learns one
thing (535) after one look-up; which of the causes it was goes to the log, without the credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from zope.interface import Interface, implementer

from lettermta.accounts.directory import Directory
from lettermta.accounts.model import Token
from lettermta.accounts.scram_keys import ScramKeys
from lettermta.interfaces import ISubmitter, LoginFault
from lettermta.smtp.scram import IScramCredentials

MakeSubmitter = Callable[[str, str], ISubmitter]
"""Makes the avatar from the ids of project and token."""


def login_fault(directory: Directory, token: Token | None) -> LoginFault | None:
    """Why a token does not let its holder submit over SMTP, or None when it does."""
    if token is None:
        return LoginFault("unknown_token", "unknown token")
    if token.revoked is not None:
        return LoginFault("revoked", f"token {token.id} is revoked")
    project = directory.project(token.project_id)
    if project is None:
        return LoginFault("no_project", f"token {token.id} has no project")
    if not project.smtp:
        return LoginFault("smtp_off", f"SMTP is switched off for project {project.slug}")
    return None


class _Checker:
    """What the two checkers share: from a token to an avatar id, or to the refusal."""

    def __init__(self, directory: Directory, usernames: Collection[str]) -> None:
        self._directory = directory
        self._usernames = frozenset(name.encode() for name in usernames)

    def _avatar(self, username: bytes, token: Token | None) -> Deferred[bytes]:
        fault = login_fault(self._directory, token)
        if username not in self._usernames:
            fault = LoginFault("wrong_user_name", "wrong user name")
        if fault is not None or token is None:
            return fail(fault or LoginFault("unknown_token", "unknown token"))
        return succeed(f"{token.project_id}/{token.id}".encode())


@implementer(ICredentialsChecker)
class TokenChecker(_Checker):
    """PLAIN and LOGIN: the token itself is given."""

    credentialInterfaces = (IUsernamePassword,)

    def requestAvatarId(self, credentials: Any) -> Any:
        """A Deferred of ``project id/token id``; the token is looked up first, so that every cause takes the same time."""
        token = self._directory.token_by_secret(credentials.password)
        return self._avatar(credentials.username, token)


@implementer(ICredentialsChecker)
class CRAMChecker(_Checker):
    """CRAM-MD5: a digest is given, and each live token is tried."""

    credentialInterfaces = (IUsernameHashedPassword,)

    def requestAvatarId(self, credentials: Any) -> Any:
        """A Deferred of ``project id/token id``."""
        token = self._directory.token_by_cram(credentials.checkPassword)
        return self._avatar(credentials.username, token)


@implementer(ICredentialsChecker)
class ScramChecker(_Checker):
    """SCRAM-SHA-256, bound to the channel or not: a proof is given, and the keys of each live token are tried."""

    credentialInterfaces = (IScramCredentials,)

    def __init__(self, directory: Directory, usernames: Collection[str], keys: ScramKeys) -> None:
        super().__init__(directory, usernames)
        self._keys = keys

    def requestAvatarId(self, credentials: Any) -> Any:
        """A Deferred of ``project id/token id``."""
        found = self._keys.token(credentials.username, credentials.verify)
        return found.addCallback(self._found, credentials)

    def _found(self, token: Token | None, credentials: Any) -> Deferred[bytes]:
        if credentials.fault:
            return fail(LoginFault("malformed", credentials.fault))
        return self._avatar(credentials.username, token)


@implementer(IRealm)
class SubmissionRealm:
    """Gives each login the submitter of its project."""

    log = Logger()

    def __init__(self, make: MakeSubmitter) -> None:
        self._make = make

    def requestAvatar(
        self, avatarId: Any, mind: Any, *interfaces: type[Interface]
    ) -> tuple[type[Interface], ISubmitter, Callable[[], None]]:
        """See IRealm."""
        if ISubmitter not in interfaces:
            raise NotImplementedError("only ISubmitter is to be had here")
        project_id, _, token_id = avatarId.decode().partition("/")
        self.log.info("{peer.address} logged in by {peer.login} with token {token}", peer=mind, token=token_id)
        return ISubmitter, self._make(project_id, token_id), _nothing


def _nothing() -> None:
    """Logging out changes nothing."""
