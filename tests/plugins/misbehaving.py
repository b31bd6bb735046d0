"""A plug-in for tests: what a lookup can do wrong, as lines of a .qmail file.

|hang         never ends, whatever signal comes
|wait PATH    ends when PATH is there
|die          takes its process along
|raise        raises what nobody foresaw
|taste PATH   reads PATH through `Tables.file`, as the controlling user
"""

from __future__ import annotations

import os
import signal
import time

from cvm_qmail.answer import Answer
from cvm_qmail.plugin import Delivery, Plugin
from cvm_qmail.rules import dotqmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Rights, Tables


def factory(tables: Tables, settings: Settings) -> Plugin:
    """See the entry point."""

    def program(delivery: Delivery) -> Answer | None:
        for line in dotqmail.programs(delivery.file.file.content or b""):
            word, *paths = line.split()
            if word in (b"hang", b"wait"):
                os.write(2, b"stuck %d\n" % os.getpid())
            if word == b"hang":
                while True:
                    signal.pause()
            elif word == b"wait":
                while not os.path.exists(paths[0]):
                    time.sleep(0.002)
            elif word == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif word == b"raise":
                raise RuntimeError("not foreseen")
            elif word == b"taste":
                tables.file(paths[0], Rights(delivery.user.uid, delivery.user.gid))
        return None

    return Plugin(program)
