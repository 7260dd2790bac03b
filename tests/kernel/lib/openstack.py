"""A stand-in for nova-compute: attaches and detaches by the real os-brick what it is told to.

Commands come one a line by a fifo, `attach FILE` and `detach FILE`, each with the connection properties
that Cinder would hand out in FILE; answers go to FILE.answer, whole or not at all. One process lives
for a whole scenario: os-brick is imported once.
"""

import os

# A name server of its own is a third of what is imported, and nobody here asks for a name.
os.environ['EVENTLET_NO_GREENDNS'] = 'yes'

import json
import logging
import sys
import time
import traceback

BEGAN = time.monotonic()

from oslo_concurrency import lockutils
from oslo_config import cfg

import os_brick
from os_brick import privileged
from os_brick.initiator import connector
from os_brick.initiator.connectors import nvmeof

LOCK_PATH = '/run/lab/nova'


def conduct(commands):
    lockutils.set_defaults(lock_path=LOCK_PATH)
    cfg.CONF([], project='nova')
    os_brick.setup(cfg.CONF)
    # As root: no helper process is needed to become it.
    privileged.default.set_client_mode(False)
    attach = connector.InitiatorConnector.factory('NVMEOF', None, device_scan_attempts=5)
    print('agent', nvmeof.nvmeof_agent, 'after', milliseconds(BEGAN), 'ms', flush=True)
    while True:
        with open(commands) as lines:
            for line in lines:
                verb, path = line.split()
                answer(path, serve(attach, verb, path))


def serve(attach, verb, path):
    with open(path) as file:
        properties = json.load(file)
    began = time.monotonic()
    try:
        if verb == 'attach':
            said = attach.connect_volume(properties)
        else:
            attach.disconnect_volume(properties, {'path': '/dev/md/' + properties['alias']})
            said = {}
    except Exception:
        return {'verb': verb, 'ms': milliseconds(began), 'failed': traceback.format_exc()}
    return {'verb': verb, 'ms': milliseconds(began), 'said': said}


def milliseconds(since):
    return int(1000 * (time.monotonic() - since))


def answer(path, document):
    with open(path + '.new', 'w') as file:
        json.dump(document, file)
    os.rename(path + '.new', path + '.answer')


if __name__ == '__main__':
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(levelname)s %(message)s')
    conduct(sys.argv[1])
