#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A provisioner for nvme-heald's `exec` backend: one JSON document in, one out.

The reference to start from. It keeps every promise of the contract with two files in one directory:
`inventory.json`, which you write, and `state.json`, which it writes. Replace `choose_spare` and what
reads the inventory by calls to your storage, and keep the rest.

    echo '{"protocol":1,"verb":"describe","deadline_ms":9000}' | nvme-heal-plugin.py /var/lib/nvme-heal-plugin
    nvme-heal provisioner conformance --backend exec:/usr/local/libexec/nvme-heal-plugin

The one idea: find out who is there, change the state in memory, make it durable, answer. The lock keeps
a second copy of this program out, and a key that was seen before changes nothing.
"""

import fcntl
import json
import os
import sys

PROTOCOL = 1
REMEMBERED = 1000


class Fault(Exception):
    """Why a call is not answered: one of the protocol's classes, and a sentence."""

    def __init__(self, kind, detail):
        super().__init__(detail)
        self.kind = kind


def load(path, default):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        if default is None:
            # A file that is not there is a provisioner that is away, never one without volumes.
            raise Fault("unreachable", f"{path} is not there") from None
        return default
    except (OSError, ValueError) as error:
        raise Fault("unreachable", f"{path}: {error}") from error


def store(path, value):
    """Replaces a file so that a power cut leaves the old one or the new one."""
    fresh = path + ".new"
    with open(fresh, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Provisioner:
    def __init__(self, directory):
        self.state_path = os.path.join(directory, "state.json")
        self.inventory = load(os.path.join(directory, "inventory.json"), None)
        self.state = load(self.state_path, {"words": {}, "grants": [], "seen": []})

    # -- what is there -------------------------------------------------------------------------------

    def volume(self, name):
        for volume in self.inventory["volumes"]:
            if volume["id"] == name:
                return volume
        raise Fault("not_found", f"no volume {name}")

    def word(self, volume, replica):
        return self.state["words"].get(volume["id"] + " " + replica)

    def say(self, volume, replica, word):
        self.state["words"][volume["id"] + " " + replica] = word

    def grants(self, volume):
        return [g for g in self.state["grants"] if g["volume"] == volume["id"] and g["stage"] != "withdrawn"]

    def members(self, volume):
        listed = [(replica, "available") for replica in volume["replicas"]]
        listed += [(grant["replica"], "synchronizing") for grant in self.grants(volume)]
        for replica, untold in listed:
            word = self.word(volume, replica["id"]) or untold
            if word != "removed":
                yield {**replica, "state": word}

    def member(self, volume, name):
        return next((replica for replica in self.members(volume) if replica["id"] == name), None)

    def taken(self):
        """Replicas that nobody may be given: in use, or found bad, or removed after use."""
        taken = {grant["replica"]["id"] for grant in self.state["grants"] if grant["stage"] != "withdrawn"}
        spent = {key.split(" ", 1)[1] for key, word in self.state["words"].items() if word in ("removed", "bad")}
        return taken | spent

    def choose_spare(self, volume, lost):
        for spare in self.inventory["spares"]:
            if spare["id"] not in self.taken() and spare["size"] >= lost["size"]:
                return spare
        raise Fault("refused", "no spare is left that is large enough")

    # -- calls ---------------------------------------------------------------------------------------

    @staticmethod
    def stage(directory, call):
        """For the conformance kit: stands its stage up, never over an inventory of yours."""
        path = os.path.join(directory, "inventory.json")
        if not load(path, {"stage": True}).get("stage"):
            raise Fault("unsupported", "the inventory is in earnest")

        def replica(name, number, size):
            return {"id": name, "nqn": f"nqn.2026-11.example:{name}", "size": size,
                    "namespace": f"6fd1ee4c-3f2c-4f6f-8a44-{number:012x}", "portals": [f"tcp://192.0.2.{number % 250}"]}

        volume = {"id": "vol-7", "copies": call["replicas"], "grace": "10m",
                  "replicas": [replica(f"r{n}", n, call["size"]) for n in range(1, call["replicas"] + 1)]}
        if call["known_by"] != "alias":
            volume["array"] = call["array"]
        if call["known_by"] != "array":
            volume["alias"] = call["alias"]
        spares = [replica(f"s{n}", 100 + n, size) for n, size in enumerate(call["spares"])]
        store(os.path.join(directory, "state.json"), {"words": {}, "grants": [], "seen": []})
        store(path, {"stage": True, "volumes": [volume], "spares": spares})
        return {}

    def describe(self, _):
        return {"name": "reference", "replacement": True}

    def probe(self, _):
        return {}

    def find_volume(self, call):
        for volume in self.inventory["volumes"]:
            # A name finds a volume only where no array is known: it never overrules another UUID.
            by_array = volume.get("array") == call["array"]
            by_name = volume.get("array") is None and volume.get("alias") in (call.get("alias"),) and "alias" in call
            if by_array or by_name:
                shown = {key: volume[key] for key in ("id", "array", "alias", "copies", "grace") if key in volume}
                return {"volume": {**shown, "replicas": list(self.members(volume))}}
        return {"volume": None}

    def report(self, call):
        volume = self.volume(call["volume"])
        name, condition = call["replica"], call["condition"]
        member = self.member(volume, name)
        if member is None:
            if self.word(volume, name) == "removed":
                return {}
            if any(g["replica"]["id"] == name and g["volume"] == volume["id"] for g in self.state["grants"]):
                if condition in ("synchronizing", "available"):
                    raise Fault("refused", f"replica {name} was withdrawn")
                return {}
            raise Fault("not_found", f"no replica {name} in {volume['id']}")
        for grant in self.grants(volume):
            if grant["replica"]["id"] == name and condition in ("synchronizing", "available"):
                grant["stage"] = "taken up"
            if grant["lost"] == name and condition == "available" and grant["stage"] == "given":
                # The lost one is back first: the other is free again, and nothing was said of it.
                grant["stage"] = "withdrawn"
                self.state["words"].pop(volume["id"] + " " + grant["replica"]["id"], None)
        if member["state"] != "bad":
            self.say(volume, name, "bad" if condition == "unusable" else condition)
        return {}

    def request_replacement(self, call):
        volume, key = self.volume(call["volume"]), call["key"]
        for grant in self.state["grants"]:
            if key in grant["keys"]:
                if (grant["volume"], grant["lost"]) != (call["volume"], call["lost"]):
                    raise Fault("refused", f"this key was used for {grant['lost']} of {grant['volume']}")
                return self.again(volume, grant)
        lost = self.member(volume, call["lost"])
        if lost is None:
            raise Fault("not_found", f"no replica {call['lost']} in {volume['id']}")
        for grant in self.grants(volume):
            # Another key for the same loss: the ledger over there is new, and the answer is the old one.
            if grant["lost"] == lost["id"] and self.usable(volume, grant):
                grant["keys"].append(key)
                return self.again(volume, grant)
        spare = self.choose_spare(volume, lost)
        if lost["state"] in ("available", "synchronizing"):
            self.say(volume, lost["id"], "missing")
        grant = {"keys": [key], "volume": volume["id"], "lost": lost["id"], "replica": spare, "stage": "given"}
        self.state["grants"].append(grant)
        return self.again(volume, grant)

    def usable(self, volume, grant):
        member = self.member(volume, grant["replica"]["id"])
        return member is not None and member["state"] in ("available", "synchronizing")

    def again(self, volume, grant):
        if grant["stage"] == "withdrawn" or not self.usable(volume, grant):
            raise Fault("refused", f"{grant['replica']['id']}, the answer to this, is no longer good for it")
        return {"granted": self.member(volume, grant["replica"]["id"])}

    def confirm_removed(self, call):
        try:
            volume = self.volume(call["volume"])
        except Fault:
            return {}
        if self.member(volume, call["replica"]) is not None:
            self.say(volume, call["replica"], "removed")
        return {}

    def answer(self, call):
        if call.get("protocol") != PROTOCOL:
            raise Fault("invalid", "another protocol")
        verbs = {verb: getattr(self, verb) for verb in
                 ("describe", "probe", "find_volume", "report", "request_replacement", "confirm_removed")}
        verb = verbs.get(call.get("verb"))
        if verb is None:
            raise Fault("unsupported", f"no call {call.get('verb')}")
        # The same report under the same key has one effect, however late it comes again.
        seen = [call.get("key"), call["verb"], call.get("volume"), call.get("replica"), call.get("condition")]
        once = call["verb"] in ("report", "confirm_removed")
        if once and seen in self.state["seen"]:
            return {}
        before = json.dumps(self.state)
        answer = verb(call)
        if once:
            self.state["seen"] = (self.state["seen"] + [seen])[-REMEMBERED:]
        if json.dumps(self.state) != before:
            store(self.state_path, self.state)
        return answer


def main():
    directory = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("STATE_DIRECTORY", "/var/lib/nvme-heal-plugin")
    try:
        call = json.loads(sys.stdin.buffer.read(1 << 20))
        try:
            lock = open(os.path.join(directory, "lock"), "w", encoding="utf-8")
        except OSError as error:
            raise Fault("unreachable", str(error)) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            staged = call.get("verb") == "stage" and call.get("protocol") == PROTOCOL
            answer = Provisioner.stage(directory, call) if staged else Provisioner(directory).answer(call)
            answer = {"protocol": PROTOCOL, "answer": answer}
    except Fault as fault:
        answer = {"protocol": PROTOCOL, "fault": {"class": fault.kind, "detail": str(fault)}}
    except (KeyError, TypeError, ValueError) as error:
        answer = {"protocol": PROTOCOL, "fault": {"class": "invalid", "detail": f"not understood: {error}"}}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
