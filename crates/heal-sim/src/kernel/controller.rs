//! A controller's life, from connected to given up.
//!
//! ```text
//!            keep-alive not answered (5 to 7.5 s), SOCK_DESTROY,       drained
//!            I/O not ended for 30 s                                    (a tenth of a second)
//!   live ────────────────────────────────────────────────► resetting ─────────► connecting
//!    ▲                                                                            │  fast_io_fail_tmo is
//!    └───────────────── an attempt every reconnect_delay ◄────────────────────────┤  read here, and only
//!                                                                                 │  here: then I/O fails
//!                                            given up, everything fails ◄─────────┘  or waits
//!                                                              ctrl_loss_tmo, delete
//! ```
//!
//! None of this is told to anybody but the log, except that a controller is connected
//! (`NVME_EVENT=connected`) and that one is gone. A controller that is dead and says `live` waits
//! for the target before it lets itself be deleted.
//!
//! The price: an attempt that is answered takes no time, one that began before the cable was back
//! is lost, and a queue's drain always takes the same.

use std::time::Duration;

use heal_types::{
    ConnectParams, ControllerName, ControllerRef, ControllerState, Digests, FastIoFail, Moment,
    Nqn, Outcome, Portal, RetryWhy, Target,
};

use super::fabric::{Gone, TargetId, first_free, name};
use super::links::Reach;
use super::{FakeKernel, KernelSignal};

/// How long the kernel takes to scan a new controller for namespaces.
pub(super) const SCAN: Duration = Duration::from_millis(30);
/// How long a controller's queues drain before it connects again (`nvme_tcp_error_recovery_work`).
pub(super) const DRAIN: Duration = Duration::from_millis(100);
/// How long an attempt to connect takes when nobody answers (one retransmission of the SYN).
const ATTEMPT: Duration = Duration::from_secs(3);
/// `nvme_core.io_timeout`.
const IO_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a delete waits for a target that does not answer (`admin_timeout`, and the I/O before).
const DELETE_HANGS: Duration = Duration::from_secs(31);
/// No look and no write to an attribute is faster than this.
const IN_THE_SAME_INSTANT: Duration = Duration::from_millis(5);
/// What the host connects as, unless told otherwise.
const HOST_NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:2f8e6a0c-5b1d-4e7f-9a3c-6d4b2e1f0a98";

/// A controller on this host.
#[derive(Debug, Clone)]
pub(crate) struct Controller {
    pub(crate) instance: u32,
    pub(crate) name: ControllerName,
    /// Which of all controllers there ever were: names are used again.
    pub(crate) serial: u64,
    pub(crate) nqn: Nqn,
    pub(crate) portal: Portal,
    /// Where it leads: what `nqn` and `portal` say, found once.
    pub(crate) leads: Leads,
    pub(crate) state: ControllerState,
    pub(crate) params: ConnectParams,
    connected_at: Moment,
    /// Since when nothing it sends is answered, while it is live.
    pub(crate) silent_since: Option<Moment>,
    /// When the keep-alive runs out.
    dead_at: Option<Moment>,
    /// When I/O that does not end is noticed.
    pub(crate) io_timeout_at: Option<Moment>,
    /// When it is drained.
    drained_at: Option<Moment>,
    pub(crate) fast_io_fail: FastIoFail,
    /// When its I/O begins to fail.
    fails_at: Option<Moment>,
    /// `NVME_CTRL_FAILFAST_EXPIRED`.
    pub(crate) expired: bool,
    /// Its I/O is failed because its leg was isolated.
    pub(crate) isolated: bool,
    /// Its connection was lost while another leg queued, or while nobody could have heard that none
    /// does. From then on nobody can take back that its I/O will fail (`nvme_start_failfast_work`
    /// reads the time once).
    pub(crate) covered: bool,
    /// When another leg queued for the last time while this one was being reset.
    covered_until: Option<Moment>,
    retry_at: Option<Moment>,
    /// When the kernel gives it up (`ctrl_loss_tmo`), while it is connecting.
    lost_at: Option<Moment>,
    /// When its namespaces are scanned.
    pub(crate) scan_at: Option<Moment>,
    /// Commands ended so far.
    pub(crate) completed: u64,
}

/// Where a controller leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leads {
    /// Which of the targets.
    pub(crate) target: TargetId,
    /// Which of its portals.
    pub(crate) portal: usize,
    /// Through which link.
    pub(crate) link: usize,
}

impl Controller {
    pub(crate) fn is(&self, meant: &ControllerRef) -> bool {
        self.name == meant.name && self.nqn == meant.nqn && self.portal == meant.portal
    }

    /// Whether its I/O fails, or would soon after its connection is lost.
    pub(crate) fn would_fail(&self) -> bool {
        match self.state {
            ControllerState::New | ControllerState::Live | ControllerState::Resetting => {
                self.fast_io_fail != FastIoFail::Off
            }
            // What is written now counts for the next loss.
            ControllerState::Connecting => self.expired || self.fails_at.is_some(),
            ControllerState::Deleting | ControllerState::DeletingNoIo | ControllerState::Dead => {
                true
            }
        }
    }

    fn keep_alive(&self) -> Duration {
        self.params.keep_alive.unwrap_or(Duration::from_secs(5))
    }

    fn reconnect_delay(&self) -> Duration {
        self.params.reconnect_delay.unwrap_or(Duration::from_secs(10))
    }

    /// When the first keep-alive is sent from `since` on (`nvme_keep_alive_work_period`).
    fn next_keep_alive(&self, since: Moment) -> Moment {
        let period = (self.keep_alive() / 2).max(Duration::from_millis(1));
        let passed = since.since(self.connected_at).as_nanos();
        let ticks = u32::try_from(passed.div_ceil(period.as_nanos())).unwrap_or(u32::MAX);
        self.connected_at.after(period.saturating_mul(ticks))
    }

    pub(crate) fn keep_alive_sent(&self, now: Moment) -> bool {
        self.silent_since.is_some_and(|since| self.next_keep_alive(since) <= now)
    }

    pub(crate) fn begin_silence(&mut self, now: Moment) {
        if self.silent_since.is_none() {
            self.silent_since = Some(now);
            self.dead_at = Some(self.next_keep_alive(now).after(self.keep_alive()));
        }
    }

    pub(crate) fn end_silence(&mut self) {
        self.silent_since = None;
        self.dead_at = None;
    }

    /// `nvme_tcp_error_recovery`.
    fn begin_reset(&mut self, now: Moment, drain: Duration) {
        self.state = ControllerState::Resetting;
        self.end_silence();
        self.io_timeout_at = None;
        self.drained_at = Some(now.after(drain));
    }

    /// `nvme_tcp_reconnect_or_remove` and `nvme_start_failfast_work`.
    fn begin_connecting(&mut self, now: Moment) {
        self.state = ControllerState::Connecting;
        self.drained_at = None;
        self.expired = false;
        self.fails_at = match self.fast_io_fail {
            FastIoFail::Off => None,
            FastIoFail::After(seconds) => Some(now.after(Duration::from_secs(seconds.into()))),
        };
        self.retry_at = Some(now.after(self.reconnect_delay()));
        self.lost_at = self.params.ctrl_loss.map(|ctrl_loss| now.after(ctrl_loss));
    }

    /// `nvme_start_ctrl` after an attempt that went well.
    fn begin_living(&mut self, now: Moment) {
        self.state = ControllerState::Live;
        self.isolated = false;
        self.covered = false;
        self.covered_until = None;
        self.connected_at = now;
        self.fails_at = None;
        self.expired = false;
        self.retry_at = None;
        self.lost_at = None;
    }

    fn due(&self) -> Option<Moment> {
        [
            self.dead_at,
            self.io_timeout_at,
            self.drained_at,
            self.fails_at,
            self.retry_at,
            self.lost_at,
            self.scan_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

fn unreachable(detail: String) -> Outcome {
    Outcome::Retry { after: Duration::from_secs(1), why: RetryWhy::Unreachable { detail } }
}

impl FakeKernel {
    /// Lets queues drain in this time from now on.
    pub fn set_drain(&mut self, drain: Duration) {
        self.drain = drain;
    }

    /// `nvme connect` to every portal that has no controller yet.
    pub(crate) fn connect(&mut self, target: &Target, params: &ConnectParams) -> Outcome {
        let Some(id) = self.target_id(&target.nqn) else {
            return unreachable(format!("no portal of {} answers", target.nqn));
        };
        let far = self.targets[id.0].portals.iter().enumerate();
        let asked: Vec<(Portal, Leads)> = far
            .filter(|(_, far)| target.portals.iter().any(|p| p.is_served_by(&far.portal)))
            .map(|(portal, far)| (far.portal.clone(), Leads { target: id, portal, link: far.link }))
            .collect();
        if asked.is_empty() {
            return unreachable(format!("{} is not at that address", target.nqn));
        }
        let mut answered = 0;
        let mut changed = false;
        for (portal, leads) in asked {
            let connected = self.controllers.iter().any(|c| c.leads == leads);
            if !connected && self.reach_of(leads) != Reach::Answers {
                continue;
            }
            answered += 1;
            if !connected {
                changed = true;
                let params = ConnectParams {
                    nqn: target.nqn.clone(),
                    portal: portal.clone(),
                    ..params.clone()
                };
                self.new_controller(leads, params);
            }
        }
        match (answered, changed) {
            (0, _) => unreachable(format!("no portal of {} answers", target.nqn)),
            (_, true) => Outcome::Changed,
            (_, false) => Outcome::AlreadySo,
        }
    }

    /// The same, for a controller as it was.
    pub(crate) fn connect_again(&mut self, params: &ConnectParams) -> Outcome {
        let same = |c: &Controller| c.nqn == params.nqn && c.portal == params.portal;
        if self.controllers.iter().any(same) {
            return Outcome::AlreadySo;
        }
        let leads = self.target_id(&params.nqn).and_then(|target| {
            let far = &self.targets[target.0].portals;
            let portal = far.iter().position(|far| far.portal == params.portal)?;
            Some(Leads { target, portal, link: far[portal].link })
        });
        match leads {
            Some(leads) if self.reach_of(leads) == Reach::Answers => {
                self.new_controller(leads, params.clone());
                Outcome::Changed
            }
            Some(_) | None => unreachable(format!("{} does not answer", params.portal)),
        }
    }

    /// How controllers are connected that nobody said anything special of.
    pub(crate) fn plain_params(nqn: &Nqn, portal: &Portal, ctrl_loss: Duration) -> ConnectParams {
        ConnectParams {
            nqn: nqn.clone(),
            portal: portal.clone(),
            host_nqn: name(HOST_NQN.to_owned()),
            host_id: None,
            io_queues: None,
            keep_alive: Some(Duration::from_secs(5)),
            reconnect_delay: Some(Duration::from_secs(2)),
            digests: Digests::default(),
            ctrl_loss: Some(ctrl_loss),
            key: None,
        }
    }

    fn new_controller(&mut self, leads: Leads, params: ConnectParams) {
        let instance = {
            // A subsystem kept alive by a held head keeps its number from any controller.
            let taken = |n: u32| {
                self.controllers.iter().any(|c| c.instance == n)
                    || self.living().filter_map(|d| d.fabric.as_ref()).any(|h| h.subsystem == n)
            };
            first_free(taken, 0)
        };
        self.serials += 1;
        let controller = Controller {
            instance,
            name: name(format!("nvme{instance}")),
            serial: self.serials,
            nqn: params.nqn.clone(),
            portal: params.portal.clone(),
            leads,
            state: ControllerState::Live,
            params,
            connected_at: self.now,
            silent_since: None,
            dead_at: None,
            io_timeout_at: None,
            drained_at: None,
            fast_io_fail: FastIoFail::Off,
            fails_at: None,
            expired: false,
            isolated: false,
            covered: false,
            covered_until: None,
            retry_at: None,
            lost_at: None,
            scan_at: Some(self.now.after(SCAN)),
            completed: 0,
        };
        let name = controller.name.clone();
        self.controllers.push(controller);
        self.uevent("add", "nvme", name.as_str());
        self.uevent("change", "nvme", name.as_str());
        self.io_moved();
    }

    /// `SOCK_DESTROY` on the sockets of a controller. Answers whether it had any.
    pub(crate) fn destroy_sockets(&mut self, at: usize) -> bool {
        let (now, drain) = (self.now, self.drain);
        let had = self.controllers[at].state == ControllerState::Live;
        if had {
            self.controllers[at].begin_reset(now, drain);
            self.log(at);
            self.io_moved();
        }
        had
    }

    /// A write to `delete_controller`: at once while it is connecting; a controller that is live
    /// and not answered takes its time, and whoever writes waits.
    pub(crate) fn delete_controller(&mut self, at: usize) -> Outcome {
        let (now, drain) = (self.now, self.drain);
        let hangs = match self.controllers[at].state {
            ControllerState::Connecting => false,
            ControllerState::Live => self.reach(&self.controllers[at]) != Reach::Answers,
            ControllerState::New
            | ControllerState::Resetting
            | ControllerState::Deleting
            | ControllerState::DeletingNoIo
            | ControllerState::Dead => true,
        };
        if hangs {
            let controller = &mut self.controllers[at];
            controller.begin_reset(now, drain);
            controller.drained_at = None;
            controller.state = ControllerState::Deleting;
            controller.lost_at = Some(now.after(DELETE_HANGS));
            return Outcome::Retry { after: Duration::from_secs(1), why: RetryWhy::TimedOut };
        }
        self.remove_controller(at, Gone::Deleted);
        Outcome::Changed
    }

    /// `nvme_do_delete_ctrl`: with the last controller its namespaces go.
    fn remove_controller(&mut self, at: usize, why: Gone) {
        let gone = self.controllers.remove(at);
        if self.controllers.iter().all(|c| c.nqn != gone.nqn) {
            self.remove_heads(&gone.nqn, why);
        }
        self.uevent("remove", "nvme", gone.name.as_str());
        self.io_moved();
    }

    /// `nvme_delete_ctrl` for all of a subsystem's controllers: the disks go first, then they.
    pub(crate) fn delete_controllers(&mut self, nqn: &Nqn, why: Gone) {
        self.remove_heads(nqn, why);
        while let Some(at) = self.controllers.iter().position(|c| c.nqn == *nqn) {
            let gone = self.controllers.remove(at);
            self.uevent("remove", "nvme", gone.name.as_str());
        }
        self.io_moved();
    }

    pub(crate) fn fabric_due(&self) -> Option<Moment> {
        self.controllers.iter().filter_map(Controller::due).min()
    }

    pub(crate) fn run_fabric(&mut self) {
        let due = |c: &&Controller| c.due().is_some_and(|due| due <= self.now);
        let serials: Vec<u64> = self.controllers.iter().filter(due).map(|c| c.serial).collect();
        for serial in serials {
            if let Some(at) = self.controllers.iter().position(|c| c.serial == serial) {
                self.run_controller(at);
            }
        }
    }

    /// A device is about to go: whoever is being reset beside it had somebody who queued.
    pub(super) fn note_who_is_covered(&mut self) {
        for at in 0..self.controllers.len() {
            let resetting = self.controllers[at].state == ControllerState::Resetting;
            if resetting && self.others_queue(at).is_ok() {
                self.controllers[at].covered_until = Some(self.now);
            }
        }
    }

    /// Whether nobody could have been told in time that the one that queued is gone.
    fn was_covered_just_now(&self, at: usize) -> bool {
        let until = self.controllers[at].covered_until;
        until.is_some_and(|until| self.now.since(until) <= IN_THE_SAME_INSTANT)
    }

    /// Whatever is due for one controller.
    fn run_controller(&mut self, at: usize) {
        let (now, drain) = (self.now, self.drain);
        let passed = |moment: Option<Moment>| moment.is_some_and(|moment| moment <= now);
        let answers = self.reach(&self.controllers[at]);
        let covered = passed(self.controllers[at].drained_at)
            && (self.others_queue(at).is_ok() || self.was_covered_just_now(at));
        let controller = &mut self.controllers[at];
        if passed(controller.scan_at) {
            controller.scan_at = None;
            let nqn = controller.nqn.clone();
            self.scan_namespaces(&nqn);
            return self.io_moved();
        }
        if passed(controller.dead_at) || passed(controller.io_timeout_at) {
            controller.begin_reset(now, drain);
            self.log(at);
        } else if passed(controller.drained_at) {
            controller.begin_connecting(now);
            controller.covered = covered;
            if passed(controller.fails_at) {
                controller.fails_at = None;
                controller.expired = true;
            }
        } else if passed(controller.fails_at) {
            controller.fails_at = None;
            controller.expired = true;
        } else if passed(controller.lost_at) {
            return self.remove_controller(at, Gone::GivenUp);
        } else if passed(controller.retry_at) {
            match answers {
                // A frozen target takes connections: its TCP lives.
                Reach::Answers | Reach::Frozen => return self.connected_again(at),
                Reach::Nothing => {
                    let next = now.after(ATTEMPT).after(controller.reconnect_delay());
                    controller.retry_at = Some(next);
                }
            }
            return;
        } else {
            return;
        }
        self.io_moved();
    }

    /// `nvme_start_ctrl` sends `NVME_EVENT=connected` and `nvme_kick_requeue_lists` a `change` of
    /// the block device.
    fn connected_again(&mut self, at: usize) {
        let now = self.now;
        self.controllers[at].begin_living(now);
        let (name, nqn) = (self.controllers[at].name.clone(), self.controllers[at].nqn.clone());
        let heads: Vec<_> = (self.devices.iter())
            .filter(|d| d.present && d.fabric.as_ref().is_some_and(|h| h.nqn == nqn))
            .map(|d| d.name.clone())
            .collect();
        for head in heads {
            self.uevent("change", "block", head.as_str());
        }
        self.uevent("change", "nvme", name.as_str());
        self.scan_namespaces(&nqn);
        self.io_moved();
    }

    /// "starting error recovery" in the kernel's log.
    fn log(&mut self, at: usize) {
        let controller = self.controllers[at].name.clone();
        self.signals.push(KernelSignal::Log { controller });
    }

    /// Whether I/O that waits is bound to this controller: commands go down the first path that is
    /// live and open, and stay there until it is neither.
    pub(crate) fn is_used(&self, controller: &Controller) -> bool {
        let target = controller.leads.target;
        (0..self.devices.len()).any(|handle| {
            self.devices[handle].present
                && self.devices[handle].fabric.as_ref().is_some_and(|h| h.target == target)
                && self.chosen_path(target).is_some_and(|c| c.serial == controller.serial)
                && self.is_waited_for(handle)
        })
    }

    /// `nvme_find_path` with the `numa` policy on a host with one node: the first that is live and
    /// that the target lets I/O through.
    pub(crate) fn chosen_path(&self, target: TargetId) -> Option<&Controller> {
        self.controllers
            .iter()
            .filter(|c| c.leads.target == target && c.state == ControllerState::Live)
            .filter(|c| self.ana_usable(c))
            .min_by_key(|c| c.instance)
    }

    /// I/O that does not end is noticed after a while, on a path that answers everything else.
    pub(crate) fn watch_io(&mut self) {
        let now = self.now;
        // Nobody waits for anything: the common case, after every write.
        let any = self.arrays.iter().any(|md| md.flight.is_some() || md.sync.is_some());
        for at in 0..self.controllers.len() {
            let controller = &self.controllers[at];
            let live = any && controller.state == ControllerState::Live;
            let stuck = live && self.is_used(controller);
            let controller = &mut self.controllers[at];
            match (stuck, controller.io_timeout_at) {
                (true, None) => controller.io_timeout_at = Some(now.after(IO_TIMEOUT)),
                (false, Some(_)) => controller.io_timeout_at = None,
                (true, Some(_)) | (false, None) => {}
            }
        }
    }
}
