//! A real Ceph on this machine: mon, mgr, and OSDs that are the processes of pods.
//!
//! ```text
//!   mon, mgr ── ours                         by-id/NODE/nvme-uuid.FSID ─► devices/N (a sparse file)
//!   ceph-osd ── the container of an OSD's pod, in a UTS namespace that has its node's name
//! ```
//!
//! So the mons see nodes as they do in a real cluster, `ceph osd find` says where an OSD was
//! started, and what the controller asks and sets is Ceph's own word. Played are the fabric (a
//! device is where its link is) and the nodes; a node that dies kills its daemons.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::world::{CLUSTER, OSDS, Patience, fsid};

pub(crate) struct Ceph {
    dir: PathBuf,
    /// They end with us.
    daemons: Vec<Child>,
}

/// What a move must leave as it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) crush: Vec<u8>,
    /// Up and acting set of each placement group.
    pub(crate) groups: Vec<(String, Value, Value)>,
}

/// What had to be copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovered {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    pub(crate) misplaced: u64,
}

/// Where OSDs say they are when they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the bucket of their target, whatever they say.
    Target,
    /// On their node, as without anybody's care.
    Node,
}

const POOL: &str = "volumes";

async fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output().await;
    let done = done.unwrap_or_else(|error| panic!("{program}: {error}: install ceph-osd"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
    done.stdout
}

impl Ceph {
    pub(crate) async fn start(dir: &Path, place: Place) -> Self {
        for name in ["mon", "mgr", "devices", "run", "by-id"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let mut ceph = Self { dir: dir.to_path_buf(), daemons: Vec::new() };
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        std::fs::write(ceph.conf(), ceph.settings(port, place)).unwrap();
        let (conf, monmap) = (ceph.conf().display().to_string(), ceph.path("monmap"));
        let at = format!("[v2:127.0.0.1:{port}/0]");
        let made = ["--create", "--clobber", "--fsid", CLUSTER, "--addv", "a", &at, &monmap];
        run("monmaptool", &made).await;
        run("ceph-mon", &["--conf", &conf, "--mkfs", "-i", "a", "--monmap", &monmap]).await;
        for (program, id) in [("ceph-mon", "a"), ("ceph-mgr", "x")] {
            let log = std::fs::File::create(dir.join(format!("{program}.out"))).unwrap();
            let daemon = Command::new(program)
                .args(["--conf", &conf, "-i", id, "--foreground"])
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            ceph.daemons.push(daemon);
        }
        for osd in 0..OSDS {
            ceph.make_osd(osd, place).await;
        }
        ceph
    }

    fn conf(&self) -> PathBuf {
        self.dir.join("ceph.conf")
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn settings(&self, port: u16, place: Place) -> String {
        let dir = self.dir.display();
        let update = place == Place::Node;
        format!(
            "[global]\nfsid = {CLUSTER}\nmon_host = [v2:127.0.0.1:{port}/0]\n\
             auth_cluster_required = none\nauth_service_required = none\nauth_client_required = none\n\
             public_network = 127.0.0.0/8\nms_bind_msgr1 = false\nmon_data_avail_warn = 2\n\
             mon_data_avail_crit = 1\nosd_pool_default_size = {OSDS}\nosd_pool_default_min_size = 2\n\
             osd_crush_chooseleaf_type = 1\nosd_pool_default_pg_autoscale_mode = off\n\
             mgr_stats_period = 1\nosd_crush_update_on_start = {update}\n\
             osd_class_update_on_start = {update}\nosd_memory_target = 939524096\n\
             run_dir = {dir}/run\nlog_file = {dir}/$name.log\n\
             admin_socket = {dir}/run/$name.$pid.asok\npid_file = {dir}/run/$name.$pid.pid\n\
             [mon]\nmon_data = {dir}/mon/$id\n[mgr]\nmgr_data = {dir}/mgr\n"
        )
    }

    async fn make_osd(&self, osd: u32, place: Place) {
        let (id, uuid) = (osd.to_string(), fsid(osd));
        let (conf, device) = (self.path("ceph.conf"), self.dir.join("devices").join(&id));
        let file = std::fs::File::create(&device).unwrap();
        file.set_len(2 << 30).unwrap();
        self.ask(&["osd", "new", &uuid, &id]).await;
        let data = self.dir.join("made").join(&id);
        std::fs::create_dir_all(&data).unwrap();
        std::os::unix::fs::symlink(&device, data.join("block")).unwrap();
        let data = data.display().to_string();
        let made = ["--conf", &conf, "-i", &id, "--mkfs", "--osd-uuid", &uuid, "--osd-data", &data];
        run("ceph-osd", &made).await;
        if place == Place::Target {
            let (host, bucket) = (format!("fabric-array-{id}"), format!("host=fabric-array-{id}"));
            self.ask(&["osd", "crush", "add-bucket", &host, "host", "root=default"]).await;
            let moved = ["osd", "crush", "create-or-move", &id, "1.0", "root=default", &bucket];
            self.ask(&moved).await;
        }
    }

    /// The device of an OSD shows on a node.
    pub(crate) fn show(&self, osd: u32, node: &str) {
        let links = self.dir.join("by-id").join(node);
        std::fs::create_dir_all(&links).unwrap();
        let link = links.join(format!("nvme-uuid.{}", fsid(osd)));
        let _ = std::os::unix::fs::symlink(self.dir.join("devices").join(osd.to_string()), link);
    }

    pub(crate) async fn ask(&self, words: &[&str]) -> Value {
        let conf = self.path("ceph.conf");
        let mut arguments = vec!["--conf", conf.as_str(), "--connect-timeout", "60"];
        arguments.extend(words);
        arguments.extend(["--format", "json"]);
        let printed = run("ceph", &arguments).await;
        serde_json::from_slice(&printed).unwrap_or(Value::Null)
    }

    async fn rados(&self, words: &[&str]) -> Vec<u8> {
        let conf = self.path("ceph.conf");
        let mut arguments = vec!["--conf", conf.as_str(), "--pool", POOL];
        arguments.extend(words);
        run("rados", &arguments).await
    }

    /// A pool with so many copies of everything.
    pub(crate) async fn make_pool(&self, size: u32) {
        self.ask(&["osd", "pool", "create", POOL, "16", "16"]).await;
        // The mgr has one of its own.
        let pools: Vec<String> =
            serde_json::from_value(self.ask(&["osd", "pool", "ls"]).await).unwrap();
        for pool in pools {
            for (what, count) in [("size", size), ("min_size", size - 1)] {
                self.ask(&["osd", "pool", "set", &pool, what, &count.to_string()]).await;
            }
        }
        self.ask(&["osd", "pool", "application", "enable", POOL, "rbd"]).await;
    }

    /// Objects whose content their names tell.
    pub(crate) async fn write(&self, name: &str, count: u32) {
        for n in 0..count {
            let object = format!("{name}-{n}");
            let file = self.path("object");
            std::fs::write(&file, content(&object)).unwrap();
            self.rados(&["put", &object, &file]).await;
        }
    }

    pub(crate) async fn check(&self, name: &str, count: u32) {
        for n in 0..count {
            let object = format!("{name}-{n}");
            let file = self.path("read");
            self.rados(&["get", &object, &file]).await;
            assert_eq!(std::fs::read(&file).unwrap(), content(&object), "{object}");
        }
    }

    pub(crate) async fn until_clean(&self) {
        let mut patience = Patience::new();
        while !self.is_clean().await {
            assert!(
                patience.lasts().await,
                "never clean: {}",
                self.ask(&["status"]).await["pgmap"]
            );
        }
    }

    /// Nor is it seen at once that something is missing.
    pub(crate) async fn until_not_clean(&self) {
        let mut patience = Patience::new();
        while self.is_clean().await {
            assert!(patience.lasts().await, "nobody misses anything");
        }
    }

    async fn is_clean(&self) -> bool {
        let status = self.ask(&["status"]).await;
        let groups = &status["pgmap"];
        let all = groups["num_pgs"].as_u64().unwrap_or_default();
        let clean = groups["pgs_by_state"].as_array().into_iter().flatten();
        let clean = clean.filter(|it| it["state_name"] == "active+clean");
        let clean: u64 = clean.filter_map(|it| it["count"].as_u64()).sum();
        all > 0 && all == clean
    }

    /// What a mgr counts is a few seconds old.
    pub(crate) async fn until_counted(&self) {
        tokio::time::sleep(Duration::from_secs(6)).await;
    }

    /// Objects that have a copy on an OSD.
    pub(crate) async fn objects_on(&self, osd: u32) -> u64 {
        let dump = self.ask(&["pg", "dump", "pgs"]).await;
        let groups = dump["pg_stats"].as_array().expect("placement groups").iter();
        let here = groups.filter(|it| it["acting"].as_array().unwrap().iter().any(|on| *on == osd));
        here.filter_map(|it| it["stat_sum"]["num_objects"].as_u64()).sum()
    }

    pub(crate) async fn map(&self) -> Map {
        let (conf, file) = (self.path("ceph.conf"), self.path("crushmap"));
        run("ceph", &["--conf", &conf, "osd", "getcrushmap", "-o", &file]).await;
        let dump = self.ask(&["pg", "dump", "pgs"]).await;
        let groups = dump["pg_stats"].as_array().expect("placement groups").iter();
        let row = |it: &Value| {
            let id = it["pgid"].as_str().unwrap_or_default().to_owned();
            (id, it["up"].clone(), it["acting"].clone())
        };
        Map { crush: std::fs::read(&file).unwrap(), groups: groups.map(row).collect() }
    }

    /// What was recovered since the cluster was made, and what is misplaced now.
    pub(crate) async fn recovered(&self) -> Recovered {
        let dump = self.ask(&["pg", "dump", "sum"]).await;
        let sum = &dump["pg_map"]["pg_stats_sum"]["stat_sum"];
        let of = |name: &str| sum[name].as_u64().unwrap_or_else(|| panic!("no {name} in {sum}"));
        Recovered {
            objects: of("num_objects_recovered"),
            bytes: of("num_bytes_recovered"),
            misplaced: of("num_objects_misplaced"),
        }
    }

    /// Whether the store on an OSD's device is whole. Nobody may have it open.
    pub(crate) async fn fsck(&self, osd: u32, node: &str) {
        let data = self.dir.join("data").join(node).join(osd.to_string());
        run("ceph-bluestore-tool", &["fsck", "--path", &data.display().to_string()]).await;
    }
}

fn content(object: &str) -> Vec<u8> {
    object.bytes().cycle().take(64 << 10).collect()
}
