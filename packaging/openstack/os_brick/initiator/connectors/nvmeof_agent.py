# Copyright 2026 The nvme-heal developers
# SPDX-License-Identifier: Apache-2.0
"""Tells nvme-heald that os-brick has attached or detached a replicated volume.

os-brick imports this module by its name and calls it under its connect lock::

    connect_volume ──► array runs ──► NVMeOFAgent.ensure_running(self)
                                          │ one line, no answer awaited
                                          ▼
                            /run/nvme-heald/look.sock ──► nvme-heald looks

There is nothing here to keep running: the daemon is a service of the host, lives
longer than nova-compute and cinder-volume, and hears of new arrays from the kernel.
What it is told here only makes it ask the provisioner at once.

So this must never be what makes an attach fail or wait. Nothing is raised, and no
call blocks: without a daemon, or with one that is busy, the line is not sent and a
line is logged instead. The module needs nothing but the standard library, and runs
on Python 3.6 (Yoga) and later, with eventlet or without.
"""

import json
import logging
import socket
from typing import Any, Optional

LOG = logging.getLogger(__name__)

# Where nvme-heald hears whoever attaches volumes. Containers mount its directory.
SOCKET = '/run/nvme-heald/look.sock'

# Of the control socket's protocol.
PROTOCOL = 1

# No path of an array is longer; the daemon reads 16 KiB.
LONGEST_NAME = 4096


class NVMeOFAgent(object):
    """What os-brick knows the agent by."""

    # Whether the last attempt to tell failed: said once, not at every attach.
    _unheard = False

    @classmethod
    def ensure_running(cls, connector: Any = None, host: Optional[str] = None,
                       *_args: Any, **_kwargs: Any) -> None:
        """After an attach. Who attached, and on which host, the daemon knows."""
        cls._tell(None)

    @classmethod
    def remove_md(cls, device_path: Any = None,
                  *_args: Any, **_kwargs: Any) -> None:
        """When an array is about to be stopped, or was."""
        cls._tell(device_path)

    @classmethod
    def _tell(cls, array: Any) -> None:
        try:
            try:
                _send(array)
                cls._unheard = False
            except BlockingIOError:
                # Callers are queueing there, so it is going to look anyway.
                LOG.debug('nvme-heald is busy and was not told')
            except OSError as error:
                level = logging.DEBUG if cls._unheard else logging.WARNING
                cls._unheard = True
                LOG.log(level, 'nvme-heald cannot be told of volumes at %s: %s',
                        SOCKET, error)
        except Exception:  # pylint: disable=broad-except
            # Not even a broken log handler may undo an attach.
            pass


def _send(array: Any) -> None:
    name = None if array is None else str(array)[:LONGEST_NAME]
    request = {'protocol': PROTOCOL, 'request': {'look': {'array': name}}}
    line = json.dumps(request) + '\n'
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        # On this kind of socket both are done at once or not at all, and what was
        # sent is delivered although nobody waits here any more.
        client.connect(SOCKET)
        client.send(line.encode('ascii'))
