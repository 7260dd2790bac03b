#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# A provisioner for nvme-heald's `exec` backend that only looks up: the least a plugin can be.
#
#   DIRECTORY/ARRAY.json     one file for each volume, named after its array's UUID as mdadm prints it:
#                            {"id": "vol-7", "copies": 2, "replicas": [ … ]}, as find_volume answers it
#
# It says which volume an array is, so that a leg that returns is known to be a replica of it. It takes
# no reports and gives no replacements: those calls are "unsupported", and nvme-heald does not ask again.
# The document comes in on one line, with no blanks between its parts.
set -eu

directory=${1:-${STATE_DIRECTORY:-/var/lib/nvme-heal-plugin}}
question=$(head -c 1048576)

# field NAME: the value of a text field, as long as there is nothing in it that would need unquoting.
field() {
    printf '%s' "$question" | sed -n 's/.*"'"$1"'":"\([A-Za-z0-9:._-]*\)".*/\1/p'
}

answer() { printf '{"protocol":1,"answer":%s}\n' "$1"; }
fault() { printf '{"protocol":1,"fault":{"class":"%s","detail":"%s"}}\n' "$1" "$2"; }

case $(field verb) in
    describe) answer '{"name":"lookup","replacement":false}' ;;
    probe)
        # A directory that is not there is a provisioner that is away, never one without volumes.
        if [ -d "$directory" ]; then answer '{}'; else fault unreachable "no directory"; fi ;;
    find_volume)
        array=$(field array)
        if [ ! -d "$directory" ]; then
            fault unreachable "no directory"
        elif [ -z "$array" ]; then
            fault invalid "no array in the question"
        elif [ -f "$directory/$array.json" ]; then
            answer "{\"volume\":$(cat "$directory/$array.json")}"
        else
            answer '{"volume":null}'
        fi ;;
    "") fault invalid "no verb in the question" ;;
    *) fault unsupported "this plugin only looks up" ;;
esac
