"""The sockets that a process opens: declared by modules and plug-ins, enforced by the sandbox.

Apart from `policies`, which command mode does not need.
"""

from typing import NamedTuple


class Network(NamedTuple):
    """The sockets that a process opens, in addition to those that it was given."""

    unix: bool = False
    """Unix sockets."""
    ports: frozenset[int] = frozenset()
    """TCP, to these ports."""
    names: bool = False
    """Host names are looked up: UDP, and TCP to port 53."""
    datagrams: bool = False
    """UDP."""
    any_port: bool = False
    """TCP to any port."""

    def __or__(self, other: object) -> "Network":
        if not isinstance(other, Network):
            return NotImplemented
        return Network(
            self.unix or other.unix,
            self.ports | other.ports,
            self.names or other.names,
            self.datagrams or other.datagrams,
            self.any_port or other.any_port,
        )

    @property
    def reached(self) -> frozenset[int] | None:
        """TCP ports; None: all."""
        return None if self.any_port else self.ports | ({53} if self.names else set())


NOTHING = Network()
EVERYTHING = Network(unix=True, names=True, datagrams=True, any_port=True)
