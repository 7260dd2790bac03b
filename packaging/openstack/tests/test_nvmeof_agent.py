# Copyright 2026 The nvme-heal developers
# SPDX-License-Identifier: Apache-2.0
"""The module as os-brick uses it: run where the real os-brick and our wheel are installed.

`cargo xtask openstack` makes such an environment for each os-brick that is named.
"""

import ast
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

from oslo_concurrency import lockutils

from os_brick.initiator.connectors import nvmeof
from os_brick.initiator.connectors import nvmeof_agent
from os_brick import utils

# The daemon may be gone, stuck or drowned: an attach pays less than this for it.
AT_ONCE = 0.05

HOST_NQN = 'nqn.2014-08.org.nvmexpress:uuid:3b0c1e52-0000-4000-8000-000000000001'

REPLICAS = [
    {
        'vol_uuid': '5a9f6a5e-0000-4000-8000-00000000000%d' % number,
        'target_nqn': 'nqn.2014-08.com.example:r%d' % number,
        'portals': [('192.0.2.%d' % number, '4420', 'tcp')],
    }
    for number in (1, 2)
]

PROPERTIES = {
    'vol_uuid': '8e0a1b6c-1f2e-3d4c-5b6a-798800112233',
    'alias': 'volume-db',
    'replica_count': 2,
    'volume_replicas': REPLICAS,
    'writable': True,
}

ATTACHED = {'protocol': 1, 'request': {'look': {'array': None}}}


class Daemon(object):
    """The door of nvme-heald: takes one line from each client, when it is asked to."""

    def __init__(self, path, backlog=16):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(path)
        self.socket.listen(backlog)
        self.socket.settimeout(5)

    def hear(self):
        client, _ = self.socket.accept()
        with client:
            client.settimeout(5)
            with client.makefile() as lines:
                line = lines.readline()
        assert line.endswith('\n'), line
        return json.loads(line)

    def is_quiet(self):
        self.socket.settimeout(0.05)
        try:
            self.socket.accept()
            return False
        except socket.timeout:
            return True


class ModuleTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = scratch.name
        self.path = os.path.join(self.scratch, 'look.sock')
        patched = mock.patch.object(nvmeof_agent, 'SOCKET', self.path)
        patched.start()
        self.addCleanup(patched.stop)
        nvmeof_agent.NVMeOFAgent._unheard = False

    def daemon(self, **how):
        daemon = Daemon(self.path, **how)
        self.addCleanup(daemon.socket.close)
        return daemon

    def at_once(self, what, *args):
        """The best of three, so that a busy machine is not taken for a wait."""
        took = []
        for _ in range(3):
            began = time.monotonic()
            self.assertIsNone(what(*args))
            took.append(time.monotonic() - began)
        self.assertLess(min(took), AT_ONCE)

    def attach(self):
        """The real connect_volume, without devices to connect.

        A host without a host NQN would get one by sudo, in its real /etc.
        """
        lockutils.set_defaults(lock_path=self.scratch)
        connector = nvmeof.NVMeOFConnector('sudo', None)
        # Yoga to Zed have the second name.
        names = ['_connect_target', '_connect_target_volume']
        target = next(name for name in names if hasattr(connector, name))
        named = mock.patch.object(utils, 'get_host_nqn', return_value=HOST_NQN)
        with named, mock.patch.multiple(
                nvmeof.NVMeOFConnector,
                _handle_replicated_volume=mock.Mock(return_value='/dev/md/volume-db'),
                **{target: mock.Mock(return_value='/dev/nvme0n1')}):
            return connector.connect_volume(dict(PROPERTIES))

    def test_os_brick_imports_it(self):
        self.assertIs(nvmeof.nvmeof_agent, nvmeof_agent)
        self.assertEqual(os.path.dirname(nvmeof_agent.__file__),
                         os.path.dirname(nvmeof.__file__))

    def test_a_replicated_attach_tells_the_daemon_to_look(self):
        daemon = self.daemon()
        self.assertEqual(self.attach()['path'], '/dev/md/volume-db')
        self.assertEqual(daemon.hear(), ATTACHED)
        self.assertTrue(daemon.is_quiet())

    def test_an_attach_without_a_daemon_succeeds(self):
        self.assertEqual(self.attach()['path'], '/dev/md/volume-db')

    def test_an_attach_beside_a_daemon_that_takes_no_calls_succeeds_at_once(self):
        daemon = self.daemon(backlog=0)
        for _ in range(50):
            self.at_once(nvmeof_agent.NVMeOFAgent.ensure_running, object())
        self.assertEqual(self.attach()['path'], '/dev/md/volume-db')
        self.assertEqual(daemon.hear(), ATTACHED, 'the first is still there')

    def test_something_else_in_the_sockets_place_costs_a_log_line(self):
        with open(self.path, 'w'):
            pass
        with self.assertLogs(nvmeof_agent.LOG, logging.WARNING):
            nvmeof_agent.NVMeOFAgent.ensure_running(object())

    def test_a_missing_daemon_is_said_once_and_again_after_it_was_there(self):
        tell = nvmeof_agent.NVMeOFAgent.ensure_running
        with self.assertLogs(nvmeof_agent.LOG, logging.DEBUG) as said:
            tell(object())
            tell(object())
            daemon = self.daemon()
            tell(object())
            daemon.socket.close()
            os.unlink(self.path)
            tell(object())
        self.assertEqual([record.levelname for record in said.records],
                         ['WARNING', 'DEBUG', 'WARNING'])

    def test_a_path_that_is_too_long_for_a_socket_raises_nothing(self):
        with mock.patch.object(nvmeof_agent, 'SOCKET', '/x' * 200):
            self.at_once(nvmeof_agent.NVMeOFAgent.ensure_running, object())

    def test_a_log_that_breaks_raises_nothing(self):
        with mock.patch.object(nvmeof_agent.LOG, 'log', side_effect=RuntimeError):
            nvmeof_agent.NVMeOFAgent.ensure_running(object())

    def test_it_is_called_in_every_way_that_was_ever_published(self):
        daemon = self.daemon()
        agent = nvmeof_agent.NVMeOFAgent
        for call in [
            lambda: agent.ensure_running(object()),
            lambda: agent.ensure_running(object(), 'host'),
            lambda: agent.ensure_running(object(), host='host'),
            lambda: agent.ensure_running(),
            lambda: agent().ensure_running(object()),
        ]:
            self.assertIsNone(call())
            self.assertEqual(daemon.hear(), ATTACHED)

    def test_the_end_of_an_array_is_told_by_its_name(self):
        daemon = self.daemon()
        nvmeof_agent.NVMeOFAgent.remove_md('/dev/md/volume-db')
        self.assertEqual(daemon.hear()['request'], {'look': {'array': '/dev/md/volume-db'}})
        for odd in (b'\xff', 7, '\udcff"\n', 'x' * 100000, None):
            nvmeof_agent.NVMeOFAgent.remove_md(odd)
            said = daemon.hear()
            self.assertLess(len(json.dumps(said)), 16 * 1024)

    def test_a_name_that_cannot_be_written_raises_nothing(self):
        class Odd(object):
            def __str__(self):
                raise ValueError('no name')

        self.daemon()
        nvmeof_agent.NVMeOFAgent.remove_md(Odd())

    def test_it_leaves_no_thread_and_no_open_file_behind(self):
        daemon = self.daemon()
        open_files = len(os.listdir('/proc/self/fd'))
        threads = threading.active_count()
        for _ in range(5):
            nvmeof_agent.NVMeOFAgent.ensure_running(object())
            nvmeof_agent.NVMeOFAgent.remove_md('/dev/md/volume-db')
        self.assertEqual(threading.active_count(), threads)
        self.assertEqual(len(os.listdir('/proc/self/fd')), open_files)
        self.assertEqual(daemon.hear(), ATTACHED)

    def test_green_threads_do_not_make_it_wait(self):
        try:
            import eventlet  # noqa: F401
        except ImportError:
            self.skipTest('this os-brick came without eventlet')
        daemon = self.daemon(backlog=0)
        script = (
            'import eventlet; eventlet.monkey_patch()\n'
            'import sys, time\n'
            'from os_brick.initiator.connectors import nvmeof_agent\n'
            'nvmeof_agent.SOCKET = sys.argv[1]\n'
            'began = time.monotonic()\n'
            'for _ in range(20): nvmeof_agent.NVMeOFAgent.ensure_running(object())\n'
            'print(time.monotonic() - began)\n')
        done = subprocess.run([sys.executable, '-c', script, self.path],
                              stdout=subprocess.PIPE, timeout=60, check=True)
        self.assertLess(float(done.stdout), 20 * AT_ONCE)
        self.assertEqual(daemon.hear(), ATTACHED)

    def test_it_needs_the_standard_library_and_python_3_6_only(self):
        with open(nvmeof_agent.__file__) as file:
            text = file.read()
        tree = ast.parse(text, feature_version=(3, 6))
        imported = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported.update(name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
        self.assertLessEqual(imported, {'json', 'logging', 'socket', 'typing'})
        self.assertLess(len(text.splitlines()), 100, 'it is to be read before it is trusted')


if __name__ == '__main__':
    unittest.main()
