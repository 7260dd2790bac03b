//! The allow-list: one function for each child that is ever started, and its deadline.
//!
//! Every value comes in as a type that was checked at the border: none starts with a dash, holds
//! white space or a control character. Device paths come in as a [`Node`], which exists only after
//! the device number behind the path was compared with the one that was meant.
//!
//! | call | may hang because | deadline |
//! |---|---|---|
//! | `nvme connect` | the target does not answer; `/dev/nvme-fabrics` takes one at a time | 15 s |
//! | `nvme disconnect` | a controller that is dead but still live waits for its commands | 70 s |
//! | `mdadm --manage`, `--grow` | MD waits until the array's I/O stands still | 20 s |
//! | `blkid`, `helper probe`, `helper superblocks` | a read of a device whose path just died | 10 s |
//! | `helper re-add` | such a read; MD's lock | 20 s |
//! | `helper set-attr`, `helper thaw` | MD's lock | 5 s |
//! | `helper delete-controller` | a controller that came back while it was told to go | 20 s |
//!
//! `mdadm` reads its arguments in order, so a `--` does nothing for it; `nvme` takes no positional
//! argument here. `blkid` gets one.

use std::time::Duration;

use heal_types::{
    ArrayId, ConnectOptions, ConnectParams, ControllerName, DevT, DeviceName, Digests, KeyRef,
    MdSuperblock, NamespaceId, Nqn, Portal, TransportKind,
};

use super::{Call, Subject, Tool};
use crate::helper::Verb;
use crate::linux::Node;

const CONNECT: Duration = Duration::from_secs(15);
const DISCONNECT: Duration = Duration::from_secs(70);
const MDADM: Duration = Duration::from_secs(20);
const READ: Duration = Duration::from_secs(10);
const SET_ATTRIBUTE: Duration = Duration::from_secs(5);
const DELETE: Duration = Duration::from_secs(20);

/// An array's node together with who it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArrayNode<'a> {
    pub(crate) id: ArrayId,
    pub(crate) node: &'a Node,
}

/// A namespace's node together with who it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NamespaceNode<'a> {
    pub(crate) id: NamespaceId,
    pub(crate) node: &'a Node,
}

/// Connects one portal.
pub(crate) fn connect(nqn: &Nqn, portal: &Portal, options: &ConnectOptions) -> Call {
    let mut args = connect_to(nqn, portal);
    args.extend([
        format!("--keep-alive-tmo={}", whole_seconds(options.keep_alive)),
        format!("--reconnect-delay={}", whole_seconds(options.reconnect_delay)),
        format!("--ctrl-loss-tmo={}", whole_seconds(options.ctrl_loss)),
    ]);
    args.extend(options.io_queues.map(|queues| format!("--nr-io-queues={queues}")));
    args.extend(connect_from(portal));
    args.extend(options.host_nqn.as_ref().map(|host| format!("--hostnqn={host}")));
    args.extend(digests(portal, options.digests));
    connecting(nqn, args)
}

/// Connects a portal as it was connected before: what the kernel showed is what it gets.
pub(crate) fn reconnect(params: &ConnectParams) -> Call {
    let mut args = connect_to(&params.nqn, &params.portal);
    let seconds = |name: &str, span: Duration| format!("--{name}={}", span.as_secs());
    args.extend(params.keep_alive.map(|span| seconds("keep-alive-tmo", span)));
    args.extend(params.reconnect_delay.map(|span| seconds("reconnect-delay", span)));
    args.push(match params.ctrl_loss {
        Some(span) => seconds("ctrl-loss-tmo", span),
        None => "--ctrl-loss-tmo=-1".to_owned(),
    });
    args.extend(params.io_queues.map(|queues| format!("--nr-io-queues={queues}")));
    args.extend(connect_from(&params.portal));
    args.push(format!("--hostnqn={}", params.host_nqn));
    args.extend(params.host_id.map(|host| format!("--hostid={host}")));
    args.extend(digests(&params.portal, params.digests));
    match params.key {
        // It looks there by itself.
        None | Some(KeyRef::NvmeConfig) => {}
    }
    connecting(&params.nqn, args)
}

fn connect_to(nqn: &Nqn, portal: &Portal) -> Vec<String> {
    vec![
        "connect".to_owned(),
        format!("--transport={}", portal.transport),
        format!("--traddr={}", portal.address),
        format!("--trsvcid={}", portal.port),
        format!("--nqn={nqn}"),
    ]
}

fn connect_from(portal: &Portal) -> impl Iterator<Item = String> {
    let address = portal.host_address.as_ref().map(|address| format!("--host-traddr={address}"));
    let interface = portal.host_interface.as_ref().map(|name| format!("--host-iface={name}"));
    address.into_iter().chain(interface)
}

/// Only TCP has them (`nvme_tcp_transport`, `allowed_opts`): others refuse to be asked.
fn digests(portal: &Portal, digests: Digests) -> impl Iterator<Item = String> {
    let tcp = portal.transport == TransportKind::Tcp;
    let asked = [("--hdr-digest", digests.header), ("--data-digest", digests.data)];
    asked.into_iter().filter(move |(_, on)| tcp && *on).map(|(option, _)| option.to_owned())
}

fn connecting(nqn: &Nqn, args: Vec<String>) -> Call {
    Call {
        tool: Tool::Nvme,
        args,
        deadline: CONNECT,
        subjects: vec![Subject::Subsystem(nqn.clone())],
    }
}

/// Deletes one controller that is connecting. `inode` says which of all that ever had this name.
pub(crate) fn delete_controller(nqn: &Nqn, controller: &ControllerName, inode: u64) -> Call {
    Call {
        tool: Tool::OurHelper,
        args: vec![
            "helper".to_owned(),
            "delete-controller".to_owned(),
            controller.to_string(),
            inode.to_string(),
        ],
        deadline: DELETE,
        subjects: vec![Subject::Subsystem(nqn.clone())],
    }
}

/// Disconnects every controller of a subsystem.
pub(crate) fn disconnect(nqn: &Nqn) -> Call {
    Call {
        tool: Tool::Nvme,
        args: vec!["disconnect".to_owned(), format!("--nqn={nqn}")],
        deadline: DISCONNECT,
        subjects: vec![Subject::Subsystem(nqn.clone())],
    }
}

/// Names what stands on a device. `--info` makes it print the I/O limits of every device it could
/// open, which is how "nothing found" and "could not open" are told apart: both exit with 2.
pub(crate) fn blkid(device: NamespaceNode<'_>) -> Call {
    blkid_with(device, &[])
}

/// The same, blind to MD: `blkid` stops at the first RAID signature, and a file system next to a
/// superblock must not be missed.
pub(crate) fn blkid_beside_md(device: NamespaceNode<'_>) -> Call {
    blkid_with(device, &["--match-types", "nolinux_raid_member"])
}

fn blkid_with(device: NamespaceNode<'_>, more: &[&str]) -> Call {
    let mut args = strings(&["--probe", "--info", "--output", "export"]);
    args.extend(strings(more));
    args.push("--".to_owned());
    args.push(device.node.to_string());
    Call { tool: Tool::Blkid, args, deadline: READ, subjects: vec![Subject::Namespace(device.id)] }
}

/// Reads both ends of a device, and which MD superblocks stand there.
pub(crate) fn probe(device: NamespaceNode<'_>, dev: DevT) -> Call {
    read("probe", device, dev)
}

/// Reads the MD superblocks of a device, and nothing else.
pub(crate) fn superblocks(device: NamespaceNode<'_>, dev: DevT) -> Call {
    read("superblocks", device, dev)
}

fn read(verb: &str, device: NamespaceNode<'_>, dev: DevT) -> Call {
    Call {
        tool: Tool::OurHelper,
        args: vec!["helper".to_owned(), verb.to_owned(), device.node.to_string(), dev.to_string()],
        deadline: READ,
        subjects: vec![Subject::Namespace(device.id)],
    }
}

/// Gives a member back to its array, the very one that `superblock` was read from, after unbinding
/// what of it is bound still.
pub(crate) fn re_add(
    array: (ArrayId, &DeviceName),
    device: NamespaceNode<'_>,
    dev: DevT,
    (superblock, leaving): (&MdSuperblock, Option<&DeviceName>),
) -> Call {
    let (id, name) = array;
    let mut args = vec![
        "helper".to_owned(),
        "re-add".to_owned(),
        name.to_string(),
        id.to_string(),
        device.node.to_string(),
        dev.to_string(),
        superblock.device.to_string(),
        superblock.events.to_string(),
    ];
    args.extend(leaving.map(DeviceName::to_string));
    Call {
        tool: Tool::OurHelper,
        args,
        deadline: MDADM,
        subjects: vec![Subject::Array(id), Subject::Namespace(device.id)],
    }
}

/// Writes one word to a member's `state`.
pub(crate) fn set_attribute(id: ArrayId, array: &DeviceName, leg: &DeviceName, verb: Verb) -> Call {
    Call {
        tool: Tool::OurHelper,
        args: vec![
            "helper".to_owned(),
            "set-attr".to_owned(),
            array.to_string(),
            id.to_string(),
            leg.to_string(),
            verb.to_string(),
        ],
        deadline: SET_ATTRIBUTE,
        subjects: vec![Subject::Array(id)],
    }
}

/// Thaws an array that is frozen.
pub(crate) fn thaw(id: ArrayId, array: &DeviceName) -> Call {
    Call {
        tool: Tool::OurHelper,
        args: vec!["helper".to_owned(), "thaw".to_owned(), array.to_string(), id.to_string()],
        deadline: SET_ATTRIBUTE,
        subjects: vec![Subject::Array(id)],
    }
}

/// Takes a member back by bitmap, never by a full copy, where the helper leaves that to `mdadm`.
pub(crate) fn re_add_by_mdadm(array: ArrayNode<'_>, device: NamespaceNode<'_>) -> Call {
    manage(array, &["--re-add"], &[device])
}

/// Adds a device as a member, to be filled from the beginning to the end. Not `--add`: that takes a
/// device with a superblock of this array back by the bitmap first, also one that is an old copy of
/// a leg and lacks what the bitmap has forgotten (`Manage_add`, `attempt_re_add`).
pub(crate) fn add(array: ArrayNode<'_>, device: NamespaceNode<'_>) -> Call {
    manage(array, &["--add-spare"], &[device])
}

/// Copies a member to a spare while both are in use.
pub(crate) fn replace(
    array: ArrayNode<'_>,
    from: NamespaceNode<'_>,
    to: NamespaceNode<'_>,
) -> Call {
    manage(array, &["--replace", "--with"], &[from, to])
}

fn manage(array: ArrayNode<'_>, flags: &[&str], devices: &[NamespaceNode<'_>]) -> Call {
    let mut args = vec!["--manage".to_owned(), array.node.to_string()];
    let mut subjects = vec![Subject::Array(array.id)];
    for (flag, device) in flags.iter().zip(devices) {
        args.push((*flag).to_owned());
        args.push(device.node.to_string());
        subjects.push(Subject::Namespace(device.id));
    }
    Call { tool: Tool::Mdadm, args, deadline: MDADM, subjects }
}

/// Sets the number of slots.
pub(crate) fn set_raid_disks(array: ArrayNode<'_>, raid_disks: u16) -> Call {
    Call {
        tool: Tool::Mdadm,
        args: vec![
            "--grow".to_owned(),
            array.node.to_string(),
            format!("--raid-devices={raid_disks}"),
        ],
        deadline: MDADM,
        subjects: vec![Subject::Array(array.id)],
    }
}

/// Rounded up, and never zero: to the kernel, zero means "never" or "off".
fn whole_seconds(duration: Duration) -> u64 {
    let up = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(up).max(1)
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRAY: ArrayId = ArrayId::from_bytes([0x11; 16]);

    fn line(call: &Call) -> String {
        format!("{} {}", call.tool, call.args.join(" "))
    }

    fn namespace(node: &Node) -> NamespaceNode<'_> {
        let id = "uuid.6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a001".parse().unwrap();
        NamespaceNode { id, node }
    }

    fn nqn() -> Nqn {
        Nqn::new("nqn.2014-08.org.nvmexpress:uuid:1").unwrap()
    }

    fn portal() -> Portal {
        Portal {
            transport: heal_types::TransportKind::Tcp,
            address: "192.0.2.1".parse().unwrap(),
            port: 4420,
            host_address: None,
            host_interface: None,
        }
    }

    #[test]
    fn connect_says_everything_that_matters() {
        assert_eq!(
            line(&connect(&nqn(), &portal(), &ConnectOptions::default())),
            "nvme connect --transport=tcp --traddr=192.0.2.1 --trsvcid=4420 \
             --nqn=nqn.2014-08.org.nvmexpress:uuid:1 --keep-alive-tmo=5 --reconnect-delay=2 \
             --ctrl-loss-tmo=600"
        );
    }

    #[test]
    fn connect_through_a_chosen_interface_as_a_chosen_host() {
        let portal = Portal {
            address: "fe80::1%eth1".parse().unwrap(),
            host_address: Some("fe80::2".parse().unwrap()),
            host_interface: Some("eth1.100".parse().unwrap()),
            ..portal()
        };
        let options = ConnectOptions {
            io_queues: Some(2),
            keep_alive: Duration::from_millis(1500),
            ctrl_loss: Duration::ZERO,
            host_nqn: Some(Nqn::new("nqn.2014-08.org.example:host").unwrap()),
            digests: Digests { header: true, data: true },
            ..ConnectOptions::default()
        };
        assert_eq!(
            line(&connect(&nqn(), &portal, &options)),
            "nvme connect --transport=tcp --traddr=fe80::1%eth1 --trsvcid=4420 \
             --nqn=nqn.2014-08.org.nvmexpress:uuid:1 --keep-alive-tmo=2 --reconnect-delay=2 \
             --ctrl-loss-tmo=1 --nr-io-queues=2 --host-traddr=fe80::2 --host-iface=eth1.100 \
             --hostnqn=nqn.2014-08.org.example:host --hdr-digest --data-digest"
        );
    }

    #[test]
    fn reconnect_says_what_the_kernel_showed() {
        let params = ConnectParams {
            nqn: nqn(),
            portal: portal(),
            host_nqn: Nqn::new("nqn.2014-08.org.example:host").unwrap(),
            host_id: Some("2cd2c43b-a90a-45c1-a8cd-86b33ab273b5".parse().unwrap()),
            io_queues: Some(2),
            keep_alive: Some(Duration::from_secs(5)),
            reconnect_delay: Some(Duration::from_secs(2)),
            ctrl_loss: None,
            key: Some(KeyRef::NvmeConfig),
            digests: Digests { header: false, data: true },
        };
        assert_eq!(
            line(&reconnect(&params)),
            "nvme connect --transport=tcp --traddr=192.0.2.1 --trsvcid=4420 \
             --nqn=nqn.2014-08.org.nvmexpress:uuid:1 --keep-alive-tmo=5 --reconnect-delay=2 \
             --ctrl-loss-tmo=-1 --nr-io-queues=2 --hostnqn=nqn.2014-08.org.example:host \
             --hostid=2cd2c43b-a90a-45c1-a8cd-86b33ab273b5 --data-digest"
        );
        let bare = ConnectParams {
            portal: Portal {
                host_address: Some("192.0.2.9".parse().unwrap()),
                host_interface: Some("eth1".parse().unwrap()),
                ..portal()
            },
            host_id: None,
            io_queues: None,
            keep_alive: Some(Duration::ZERO),
            reconnect_delay: None,
            ctrl_loss: Some(Duration::from_secs(600)),
            key: None,
            digests: Digests::default(),
            ..params
        };
        assert_eq!(
            line(&reconnect(&bare)),
            "nvme connect --transport=tcp --traddr=192.0.2.1 --trsvcid=4420 \
             --nqn=nqn.2014-08.org.nvmexpress:uuid:1 --keep-alive-tmo=0 --ctrl-loss-tmo=600 \
             --host-traddr=192.0.2.9 --host-iface=eth1 --hostnqn=nqn.2014-08.org.example:host"
        );
    }

    #[test]
    fn deleting_names_the_controller_and_which_of_its_name() {
        let call = delete_controller(&nqn(), &ControllerName::new("nvme3").unwrap(), 4711);
        assert_eq!(line(&call), "helper helper delete-controller nvme3 4711");
        assert_eq!(call.subjects, [Subject::Subsystem(nqn())]);
    }

    #[test]
    fn disconnect_names_the_subsystem() {
        let call = disconnect(&nqn());
        assert_eq!(line(&call), "nvme disconnect --nqn=nqn.2014-08.org.nvmexpress:uuid:1");
    }

    #[test]
    fn reading_is_reading() {
        let node = Node::for_test("/dev/nvme1n1");
        assert_eq!(
            line(&blkid(namespace(&node))),
            "blkid --probe --info --output export -- /dev/nvme1n1"
        );
        assert_eq!(
            line(&blkid_beside_md(namespace(&node))),
            "blkid --probe --info --output export --match-types nolinux_raid_member -- /dev/nvme1n1"
        );
        let dev = DevT { major: 259, minor: 3 };
        assert_eq!(line(&probe(namespace(&node), dev)), "helper helper probe /dev/nvme1n1 259:3");
    }

    #[test]
    fn a_member_is_changed_by_name_and_word_only() {
        let array = DeviceName::new("md127").unwrap();
        let leg = DeviceName::new("nvme1n1").unwrap();
        for (verb, word) in [
            (Verb::Faulty, "faulty"),
            (Verb::Remove, "remove"),
            (Verb::ClearWantReplacement, "clear-want-replacement"),
        ] {
            assert_eq!(
                line(&set_attribute(ARRAY, &array, &leg, verb)),
                format!("helper helper set-attr md127 {ARRAY} nvme1n1 {word}")
            );
        }
    }

    #[test]
    fn mdadm_gets_one_act_at_a_time() {
        let (md, one, two) = (
            Node::for_test("/dev/md127"),
            Node::for_test("/dev/nvme1n1"),
            Node::for_test("/dev/nvme2n1"),
        );
        let array = ArrayNode { id: ARRAY, node: &md };
        assert_eq!(
            line(&re_add_by_mdadm(array, namespace(&one))),
            "mdadm --manage /dev/md127 --re-add /dev/nvme1n1"
        );
        assert_eq!(
            line(&add(array, namespace(&one))),
            "mdadm --manage /dev/md127 --add-spare /dev/nvme1n1"
        );
        assert_eq!(
            line(&replace(array, namespace(&one), namespace(&two))),
            "mdadm --manage /dev/md127 --replace /dev/nvme1n1 --with /dev/nvme2n1"
        );
        assert_eq!(line(&set_raid_disks(array, 3)), "mdadm --grow /dev/md127 --raid-devices=3");
    }
}
