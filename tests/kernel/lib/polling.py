"""A model of the vendor's polling agent, to be held against: IT IS NOT THE AGENT.

It was written from what is known of the agent's behaviour, and has its schedule (a first pass a second
after the start, the next one thirty seconds after the end of the one before) and the order of steps in
a pass, with the same programs and the same requests:

    targets ─► lost controllers ─► host_probe ─► each array of /dev/md:
        legs and their paths ─► the volume ─► fail what is dead ─► tell what is not as it was told
        ─► a replica that is no good leg: publish, connect, add

What it leaves out is what no fault of this comparison leads to: asking for other replicas, tasks,
shrinking, tokens. Where the agent is known to fail, the model is kinder and goes on: it knows both
shapes of targets, and lets go of a leg whose device is gone before it adds the one that came back.
"""

import glob
import http.client
import json
import os
import ssl
import subprocess
import sys
import time

FIRST = 1
PAUSE = 30
TRIES = 10
# So long the agent waits for what it sends and what it is sent.
CONNECT = 5
CONTROLLERS = '/sys/class/nvme-fabrics/ctl/nvme*'


def read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ''


def run(*argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode == 0


class Provisioner:
    """Any certificate is believed, as the agent does."""

    def __init__(self, address):
        self.address = address
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.connection = None

    def ask(self, method, path, body=None):
        text = json.dumps(body, indent=4, sort_keys=True) if body is not None else None
        headers = {'Authorization': 'Bearer Unknown'}
        if method != 'GET':
            headers['Content-Type'] = 'application/json'
        for fresh in (False, True):
            if self.connection is None or fresh:
                self.connection = http.client.HTTPSConnection(
                    self.address, timeout=CONNECT, context=self.context)
            try:
                self.connection.request(method, path, text, headers)
                return json.loads(self.connection.getresponse().read())
            except (OSError, http.client.HTTPException):
                if fresh:
                    raise


class Array:
    def __init__(self, link):
        self.path = link
        self.name = os.path.basename(os.path.realpath(link))
        self.md = '/sys/block/%s/md' % self.name
        self.legs = {}
        for leg in glob.glob(self.md + '/dev-*'):
            self.legs[leg.rpartition('/dev-')[2]] = read(leg + '/state')

    def is_live(self, leg):
        device = '/sys/block/%s/slaves/%s/device' % (self.name, leg)
        states = [device + '/state'] + glob.glob(device + '/nvme*/state')
        return any('live' in read(state) for state in states)

    def failed(self):
        return [leg for leg, state in self.legs.items() if 'faulty' in state]

    def state_of(self, uuid):
        """In the provisioner's words."""
        for leg, state in self.legs.items():
            if read('/sys/block/%s/uuid' % leg) == uuid and 'faulty' not in state:
                return 'Available' if 'in_sync' in state else 'Synchronizing'
        return 'Missing'


class Agent:
    def __init__(self, provisioner, host):
        self.provisioner = provisioner
        self.host = host
        self.told = {}

    def say(self, level, message, **parameters):
        self.provisioner.ask('POST', '/forward_log', {
            'loggingType': 'EVENT', 'level': level, 'host': self.host, 'appName': 'nvmeof_agent',
            'message': message, 'parametersList': parameters})

    def one_pass(self):
        targets = self.provisioner.ask('GET', '/targets?hostId=' + self.host)
        self.disconnect_unused(nqn_of(target) for target in targets)
        for controller in glob.glob(CONTROLLERS):
            if read(controller + '/state') != 'live':
                self.say('FATAL', 'NVMeoF host disconnected from backend.',
                         targetNQN=read(controller + '/subsysnqn'))
        self.provisioner.ask('POST', '/host_probe', {
            'hostNqn': read('/etc/nvme/hostnqn'), 'hostId': self.host, 'name': self.host,
            'clientType': 'Openstack', 'version': '3.22.170', 'duration': PAUSE,
            'multipath': True})
        for link in sorted(glob.glob('/dev/md/*')):
            self.monitor(link)

    def disconnect_unused(self, nqns):
        nqns = set(nqns)
        for controller in glob.glob(CONTROLLERS):
            if read(controller + '/subsysnqn') in nqns and not glob.glob(controller + '/nvme*'):
                run('nvme', 'disconnect', '-d', os.path.basename(controller))

    def monitor(self, link):
        array = Array(link)
        if array.name not in read('/proc/mdstat'):
            return
        live = [leg for leg in array.legs if array.is_live(leg)]
        for leg in live:
            if run('mdadm', '--examine', '/dev/' + leg):
                break
        degraded = int(read(array.md + '/degraded') or 0)
        alias = os.path.basename(link)
        volumes = self.provisioner.ask('GET', '/volumes_by_alias/' + alias)
        if not volumes:
            return
        volume = volumes[0]
        targets = self.provisioner.ask('GET', '/targets?volId=' + volume['uuid'])
        for leg in array.legs:
            if leg not in live and leg not in array.failed():
                run('mdadm', '--manage', link, '--fail', '/dev/' + leg)
        self.tell_event(alias, 'OK' if not degraded else 'DEGRADED')
        array = Array(link)
        for location in volume['location']:
            state = array.state_of(location['uuid'])
            if location['replicaState'] not in (state, 'Terminating'):
                self.provisioner.ask('PATCH', '/replica/%s/%s/%s' % (
                    volume['uuid'], location['uuid'], state))
                location['replicaState'] = state
        if len(array.legs) < len(volume['location']) or array.failed():
            self.add_legs(array, volume, targets)

    def tell_event(self, alias, state):
        if self.told.get(alias, state) != state:
            if state == 'OK':
                self.say('INFO', 'Volume is healed.', volumeAlias=alias)
            else:
                self.say('FATAL', 'Volume is degraded.', volumeAlias=alias)
        self.told[alias] = state

    def add_legs(self, array, volume, targets):
        for location in volume['location']:
            where = location['backend']['persistentID']
            target = next((nqn_of(one) for one in targets
                           if one.get('backend', {'persistentID': where})['persistentID'] == where), None)
            if not where or target is None or array.state_of(location['uuid']) != 'Missing':
                continue
            backend = self.provisioner.ask('GET', '/backends/' + where)[0]
            if backend['state'] != 'Available' or location['replicaState'] == 'Terminating':
                continue
            self.provisioner.ask('POST', '/publish', {'hostId': self.host, 'volId': volume['uuid']})
            for _ in range(1 if location['replicaState'] == 'Missing' else TRIES):
                found = self.connect(target, where, location['uuid'])
                if found:
                    self.add(array, found)
                    break
                time.sleep(1)

    def connect(self, nqn, where, uuid):
        """The leg of that id, if it is there or can be connected."""
        own = [one for one in glob.glob(CONTROLLERS) if read(one + '/subsysnqn') == nqn]
        for controller in own:
            if read(controller + '/state') == 'live':
                run('nvme', 'ns-rescan', '/dev/' + os.path.basename(controller))
        for backend in self.provisioner.ask('GET', '/backends'):
            if backend['persistentID'] == where and not own:
                portal = backend['portals'][0]
                transport = 'rdma' if portal['transport'] == 'RoCEv2' else 'tcp'
                run('nvme', 'connect', '-a', portal['ip'], '-s', str(portal['port']),
                    '-t', transport, '-n', nqn, '-Q', '128', '-l', '-1')
        for last in (False, True):
            for block in glob.glob('/sys/block/nvme*n*'):
                device = '/dev/' + os.path.basename(block)
                if read(block + '/uuid') == uuid and os.path.exists(device):
                    return device
            for controller in own:
                run('nvme', 'ns-rescan', '/dev/' + os.path.basename(controller))
            if not last:
                time.sleep(1)
        return None

    def add(self, array, device):
        if os.path.basename(device) in array.failed():
            run('mdadm', '--manage', array.path, '--remove', device)
        elif array.failed():
            run('mdadm', '--manage', array.path, '--remove', 'failed')
        run('mdadm', array.path, '--add', '--failfast', device)
        self.say('WARN', 'Volume synchronization started.', volumeAlias=os.path.basename(array.path))


def nqn_of(target):
    return target.get('name') or target.get('targetName')


def main(address, host):
    agent = Agent(Provisioner(address), host)
    time.sleep(FIRST)
    number = 0
    while True:
        number += 1
        began = time.monotonic()
        print('pass', number, 'begins', flush=True)
        agent.one_pass()
        print('pass', number, 'ended after', int(1000 * (time.monotonic() - began)), 'ms', flush=True)
        time.sleep(PAUSE)


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2])
