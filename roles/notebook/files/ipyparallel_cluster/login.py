# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Login with the password, with a limit to wrong ones, and a line in the log for each that fail2ban reads.

Jupyter Server takes its identity provider from here, and the handlers in ``default_handlers``.
"""

from __future__ import annotations

import collections
import math
import time
import uuid
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.identity import PasswordIdentityProvider, User
from jupyter_server.auth.login import LoginFormHandler
from jupyter_server.base.handlers import APIVersionHandler
from tornado import web
from traitlets import Float, Integer, default


class Failures:
    """Wrong passwords of a moving window of time.

    Args:
        seconds: length of the window.
        each: how many of them one origin may have.
        everybody: how many all origins may have that have never logged in. Never more than those are kept.
    """

    def __init__(self, seconds: float, each: int, everybody: int) -> None:
        self.seconds, self.each, self.everybody = seconds, each, everybody
        self._seen: collections.deque[tuple[float, str, bool]] = collections.deque(maxlen=each + everybody)

    def add(self, origin: str, is_known: bool, now: float) -> None:
        """Note a wrong password from *origin*."""
        self._seen.append((now, origin, is_known))

    def wait(self, origin: str, is_known: bool, now: float) -> int:
        """Return for how many seconds no password of *origin* is looked at.

        Args:
            origin: who tries.
            is_known: it has logged in before. What others do then does not count.
            now: seconds of a clock that is never set.
        """
        begin = now - self.seconds
        while self._seen and self._seen[0][0] <= begin:
            self._seen.popleft()
        until = begin
        own = [seen for seen, name, _known in self._seen if name == origin]
        strangers = [seen for seen, _name, known in self._seen if not known]
        if len(own) >= self.each:
            until = own[-self.each]
        if not is_known and len(strangers) >= self.everybody:
            until = max(until, strangers[-self.everybody])
        return math.ceil(until - begin)


class LoginHandler(LoginFormHandler):
    """The login form, which says when a password is looked at again."""

    @allow_unauthenticated
    def post(self) -> None:
        """Look at a password, if it is time."""
        wait = self.identity_provider.wait(self)
        if wait:
            self.set_status(429)
            self.set_header("Retry-After", str(wait))
            self._render(message={"error": f"Too many wrong passwords: wait {wait} s, then try again"})
            return
        super().post()


class LimitedIdentityProvider(PasswordIdentityProvider):
    """Takes the password, a few wrong ones a minute, and the token."""

    window = Float(60.0, help="For how many seconds a wrong password counts.").tag(config=True)
    attempts = Integer(5, min=1, help="Wrong passwords of one address within the window.").tag(config=True)
    attempts_of_all = Integer(50, min=1, help="Wrong passwords of all addresses within the window.").tag(config=True)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._failures = Failures(self.window, self.attempts, self.attempts_of_all)

    @default("login_handler_class")
    def _default_login_handler_class(self) -> type[LoginHandler]:
        return LoginHandler

    def _known_name(self, handler: Any) -> str:
        return f"{self.get_cookie_name(handler)}-known"

    def _origin(self, handler: Any) -> tuple[str, bool]:
        """Return who sends a request, and whether that is a browser that has logged in before.

        People behind one proxy, or one end of an SSH tunnel, share an address; the cookie tells them apart. It is
        signed, is worth nothing else, and ends with the password that it was given for.
        """
        known = handler.get_secure_cookie(self._known_name(handler))
        return (known.decode(), True) if known else (handler.request.remote_ip, False)

    def wait(self, handler: Any) -> int:
        """Return for how many seconds no password of this request's origin is looked at."""
        wait = self._failures.wait(*self._origin(handler), time.monotonic())
        if wait:
            self.log.warning("Login refused from %s: %d s to wait", handler.request.remote_ip, wait)
        return wait

    def process_login_form(self, handler: Any) -> User | None:
        """Return who has sent the right password or the token, or None."""
        origin, is_known = self._origin(handler)
        user = super().process_login_form(handler)
        if user is None:
            self._failures.add(origin, is_known, time.monotonic())
            self.log.warning("Login failed from %s: wrong password", handler.request.remote_ip)
            return None
        name = self._known_name(handler)
        secure = handler.request.protocol == "https"
        handler.set_secure_cookie(name, uuid.uuid4().hex, path=handler.base_url, httponly=True, secure=secure)
        return user

    async def get_user_token(self, handler: Any) -> User | None:
        """Return who has sent the token, or None."""
        user = await super().get_user_token(handler)
        if user is None and self.get_token(handler) and not self.get_user_cookie(handler):
            self.log.warning("Login failed from %s: wrong token", handler.request.remote_ip)
        return user


class VersionHandler(APIVersionHandler):
    """The version of Jupyter Server, which Jupyter tells anybody."""

    @web.authenticated
    def get(self) -> None:
        """Tell it to who has logged in."""
        super().get()


default_handlers = [("/api", VersionHandler)]
