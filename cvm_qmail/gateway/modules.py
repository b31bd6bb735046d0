"""From a module's name to the object that asks it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cvm_qmail.gateway.backend import Backend
from cvm_qmail.gateway.module import Cvm, Way
from cvm_qmail.gateway.module_local import Local
from cvm_qmail.gateway.module_udp import Udp
from cvm_qmail.gateway.settings import Settings
from cvm_qmail.gateway.turns import Turns

if TYPE_CHECKING:
    import ssl


class CannotAsk(Exception):
    """A module cannot be asked with these settings; the message is the cause."""


class Modules:
    """Makes backends, all with the same settings."""

    def __init__(self, settings: Settings, turns: Turns) -> None:
        self._settings = settings
        self._turns = turns
        self._context: ssl.SSLContext | None = None

    def backend(self, name: str) -> Backend:
        """A backend for a module.  Raises `CannotAsk`."""
        scheme, _, address = name.partition(":")
        way = _WAYS[scheme](self, address)
        return Backend(name, way, timeout=self._settings.timeout, waiting=self._settings.waiting)

    def local(self, path: str) -> Way:
        """A module at a path."""
        return Cvm(Local(path, self._turns), self._settings.secret.value, nonce=False)

    def udp(self, address: str) -> Way:
        """A module at a host and port."""
        return Cvm(Udp(address, self._turns), self._settings.secret.value, nonce=True)

    def https(self, address: str) -> Way:
        """Another gateway.  Raises `CannotAsk`."""
        if find_spec("h11") is None:
            raise CannotAsk("https needs the package h11: pip install 'cvm-qmail[gateway]'")
        from cvm_qmail.gateway.module_https import Https

        return Https(f"https:{address}", self._tls(), self._settings.https_token.value, self._turns)

    def _tls(self) -> ssl.SSLContext:
        """The trusted certificates and this gateway's own, read once.  Raises `CannotAsk`."""
        import ssl

        if self._context is None:
            authorities, own = self._settings.https_ca, self._settings.https_certificate
            try:
                context = ssl.create_default_context(cafile=authorities)
            except ssl.SSLError:
                raise CannotAsk(f"CVM_GATEWAY_HTTPS_CA: {authorities}: expected a PEM file with certificates") from None
            except OSError as error:
                raise CannotAsk(f"CVM_GATEWAY_HTTPS_CA: {authorities}: {error.strerror}") from None
            if own:
                try:
                    context.load_cert_chain(own, password=_no_password)
                except ssl.SSLError:
                    expected = "a PEM file with a certificate and its key"
                    raise CannotAsk(f"CVM_GATEWAY_HTTPS_CERTIFICATE: {own}: expected {expected}") from None
                except (OSError, ValueError) as error:
                    found = getattr(error, "strerror", None) or error
                    raise CannotAsk(f"CVM_GATEWAY_HTTPS_CERTIFICATE: {own}: {found}") from None
            self._context = context
        return self._context


def _no_password() -> str:
    """Refuses a key with a password, instead of asking for it on the terminal."""
    raise ValueError("its key has a password, expected none")


_WAYS: dict[str, Callable[[Modules, str], Way]] = {
    "cvm-local": Modules.local,
    "cvm-udp": Modules.udp,
    "https": Modules.https,
}
"""By the scheme of a name."""
