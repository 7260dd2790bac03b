//! The vocabulary of nvme-heal: ids, snapshots, actions, ports.
