//! What can be done to a world from outside: faults, repairs, and a person's word.

use heal_core::{Event, Operator};
use heal_types::{ArrayId, NamespaceId, Nqn, ReplicaId, ReplicaState, VolumeId};

use super::World;
use super::setup::{Flaw, ReplicaPlan};
use super::transcript::LineKind;
use crate::invariants::Trouble;
use crate::kernel::fabric::{Gone, name};
use crate::kernel::{FakeKernel, ToolFault};

impl World {
    pub(crate) fn plan(&self, replica: &str) -> &ReplicaPlan {
        self.arrays
            .iter()
            .flat_map(|array| &array.replicas)
            .find(|plan| plan.replica.id.as_str() == replica)
            .expect("a story names only replicas of its setup")
    }

    /// The subsystem of a replica.
    #[must_use]
    pub fn nqn(&self, replica: &str) -> Nqn {
        self.plan(replica).nqn.clone()
    }

    /// The namespace of a replica.
    #[must_use]
    pub fn namespace(&self, replica: &str) -> NamespaceId {
        self.plan(replica).namespace
    }

    /// The array of that name.
    #[must_use]
    pub fn array(&self, name: &str) -> ArrayId {
        self.arrays
            .iter()
            .find(|array| array.name == name)
            .map(|array| array.id)
            .expect("a story names only arrays of its setup")
    }

    pub(crate) fn volume_of(&self, replica: &str) -> VolumeId {
        self.arrays
            .iter()
            .find(|array| array.replicas.iter().any(|p| p.replica.id.as_str() == replica))
            .and_then(|array| array.volume.clone())
            .expect("a story names only replicas of a volume")
    }

    /// Writes a sentence of the story's own into the transcript.
    pub fn say(&mut self, text: impl Into<String>) {
        let now = self.now.mono;
        self.transcript.push(now, LineKind::Fault, text.into());
    }

    /// The target stops exporting the replica's namespace.
    pub fn namespace_removed(&mut self, replica: &str) {
        self.say(format!("the namespace of {replica} is taken away"));
        let nqn = self.nqn(replica);
        self.kernel.remove_namespace(&nqn);
        self.after_kernel();
    }

    /// The target exports it again.
    pub fn namespace_restored(&mut self, replica: &str) {
        self.say(format!("the namespace of {replica} is back"));
        let nqn = self.nqn(replica);
        self.kernel.restore_namespace(&nqn);
        self.after_kernel();
    }

    /// The namespace goes while nothing writes: MD does not notice.
    pub fn idle_gone(&mut self, replica: &str) {
        self.kernel.set_workload(None);
        self.namespace_removed(replica);
    }

    /// The cables to the replica are pulled: MD still counts the leg in sync, I/O to it waits.
    pub fn path_lost(&mut self, replica: &str) {
        self.say(format!("the path to {replica} is lost"));
        let nqn = self.nqn(replica);
        self.kernel.lose_path(&nqn);
        self.after_kernel();
    }

    /// The cable is back.
    pub fn path_up(&mut self, replica: &str) {
        self.say(format!("the path to {replica} is back"));
        let nqn = self.nqn(replica);
        self.kernel.restore_path(&nqn);
        self.after_kernel();
    }

    /// A cable is pulled out of the host.
    pub fn pull(&mut self, link: &str) {
        self.say(format!("the cable of {link} is pulled"));
        self.kernel.set_carrier(&name(link.to_owned()), false);
        self.after_kernel();
    }

    /// It is back.
    pub fn plug(&mut self, link: &str) {
        self.say(format!("the cable of {link} is back"));
        self.kernel.set_carrier(&name(link.to_owned()), true);
        self.after_kernel();
    }

    /// Whatever leaves through a link vanishes, or no longer does; the link stays up.
    pub fn black_hole(&mut self, link: &str, black: bool) {
        let word = if black { "vanishes" } else { "arrives again" };
        self.say(format!("what leaves through {link} {word}"));
        self.kernel.set_black_hole(&name(link.to_owned()), black);
        self.after_kernel();
    }

    /// The target of the replica stands still while its TCP lives, or goes on.
    pub fn frozen_target(&mut self, replica: &str, frozen: bool) {
        let word = if frozen { "stands still" } else { "goes on" };
        self.say(format!("the target of {replica} {word}"));
        let nqn = self.nqn(replica);
        self.kernel.set_frozen(&nqn, frozen);
        self.after_kernel();
    }

    /// The target lets no I/O through to the replica (ANA), or does again.
    pub fn ana_usable(&mut self, replica: &str, usable: bool) {
        let word = if usable { "lets I/O through to" } else { "lets no I/O through to" };
        self.say(format!("the target {word} {replica} (ANA)"));
        let nqn = self.nqn(replica);
        self.kernel.set_ana(&nqn, usable);
        self.after_kernel();
    }

    /// The process that exports the replica dies, or is back: connections are reset at once.
    pub fn target_serving(&mut self, replica: &str, serving: bool) {
        let word = if serving { "is back" } else { "dies" };
        self.say(format!("the target process of {replica} {word}"));
        let nqn = self.nqn(replica);
        self.kernel.set_serving(&nqn, serving);
        self.after_kernel();
    }

    /// The machine that exports the replica dies.
    pub fn target_gone(&mut self, replica: &str) {
        self.say(format!("the target of {replica} dies"));
        let nqn = self.nqn(replica);
        self.kernel.target_vanishes(&nqn);
        self.after_kernel();
    }

    /// The replica's controllers give up at once, as after `ctrl_loss_tmo`; its disk goes with
    /// them.
    pub fn controllers_give_up(&mut self, replica: &str) {
        self.say(format!("the kernel gives up the controllers of {replica}"));
        let nqn = self.nqn(replica);
        self.kernel.delete_controllers(&nqn, Gone::GivenUp);
        self.after_kernel();
    }

    /// A person connects the replica by hand, as another tool would.
    pub fn connected_by_hand(&mut self, replica: &str) {
        self.say(format!("another tool connects {replica}"));
        let target = self.plan(replica).replica.target.clone();
        let ctrl_loss = std::time::Duration::from_secs(600);
        if let Some(portal) = target.portals.first() {
            let params = FakeKernel::plain_params(&target.nqn, portal, ctrl_loss);
            let _ = self.kernel.connect(&target, &params);
        }
        self.after_kernel();
    }

    /// Something is wrong with a replica that nobody has used yet.
    pub fn flawed(&mut self, replica: &str, flaw: &Flaw) {
        if let Flaw::CloneOf(_) = flaw {
            self.checker.trouble(Trouble::Clone);
        }
        if let Flaw::OldCopyOf(_) = flaw {
            self.checker.trouble(Trouble::Copy);
        }
        let (nqn, id) = (self.nqn(replica), self.plan(replica).replica.id.clone());
        self.checker.flaw(&id);
        self.kernel.spoil_target(&nqn, flaw);
    }

    /// A write error that passes.
    pub fn hiccup(&mut self, replica: &str) {
        self.say(format!("a write to {replica} fails once"));
        let id = self.namespace(replica);
        self.kernel.hiccup(&id);
        self.after_kernel();
    }

    /// Somebody stops the array.
    pub fn array_stopped(&mut self, array: &str) {
        self.say(format!("{array} is stopped"));
        let id = self.array(array);
        self.stops(id);
        self.kernel.stop_array(id);
        self.after_kernel();
    }

    /// Somebody assembles it again.
    pub fn array_assembled(&mut self, array: &str) {
        self.say(format!("{array} is assembled again"));
        let id = self.array(array);
        self.kernel.assemble_array(id);
        self.after_kernel();
    }

    /// The next action of that verb goes wrong.
    pub fn spoil_next(&mut self, verb: &'static str, fault: ToolFault) {
        self.say(format!("the next {verb} goes wrong: {fault:?}"));
        self.kernel.spoil_next(verb, fault);
    }

    /// The provisioner answers nobody, or answers again.
    pub fn provisioner_down(&mut self, down: bool) {
        let word = if down { "does not answer any more" } else { "answers again" };
        self.say(format!("the provisioner {word}"));
        self.provisioner.mood.down = down;
    }

    /// The provisioner refuses to give replacements, or does no longer.
    pub fn provisioner_refuses(&mut self, why: Option<&str>) {
        match why {
            Some(why) => self.say(format!("the provisioner will refuse: {why}")),
            None => self.say("the provisioner will not refuse any more"),
        }
        self.provisioner.mood.refuse = why.map(str::to_owned);
    }

    /// The provisioner wants the replica out.
    pub fn terminating(&mut self, replica: &str) {
        self.say(format!("the provisioner wants {replica} out"));
        let volume = self.volume_of(replica);
        let id = self.plan(replica).replica.id.clone();
        self.provisioner.terminate(&volume, &id);
    }

    /// The provisioner puts another replica in the lost one's place without being asked.
    pub fn replaced_by_itself(&mut self, replica: &str) {
        self.say(format!("the provisioner replaces {replica} by itself"));
        let volume = self.volume_of(replica);
        let id = self.plan(replica).replica.id.clone();
        self.provisioner.replace_by_itself(&volume, &id);
    }

    /// The volume shall have this many copies.
    pub fn copies(&mut self, array: &str, copies: u16) {
        self.say(format!("{array} shall have {copies} copies"));
        let volume = self.arrays.iter().find(|a| a.name == array).and_then(|a| a.volume.clone());
        if let Some(volume) = volume {
            self.provisioner.set_copies(&volume, copies);
        }
    }

    /// Something told the daemon that the provisioner's word may have changed.
    pub fn volume_stale(&mut self, array: &str) {
        let id = self.array(array);
        self.deliver(id, Event::VolumeStale);
    }

    /// A person holds the array.
    pub fn operator_hold(&mut self, array: &str, reason: &str) {
        let id = self.array(array);
        let hold =
            Operator::Hold { reason: reason.to_owned(), by: "alice".to_owned(), until: None };
        self.deliver(id, Event::Operator(hold));
    }

    /// A person ends the hold.
    pub fn operator_resume(&mut self, array: &str) {
        let id = self.array(array);
        self.disk.give_up(id);
        let resume = Operator::Resume { by: "alice".to_owned() };
        self.deliver(id, Event::Operator(resume));
    }

    /// The disk of the ledger is full, or has room again.
    pub fn disk_full(&mut self, full: bool) {
        let word = if full { "is full" } else { "has room again" };
        self.say(format!("the disk of the ledger {word}"));
        self.disk.set_full(full);
        self.checker.trouble(Trouble::Disk);
        if !full {
            self.save_waiting();
        }
    }

    /// What the provisioner thinks of a replica now.
    #[must_use]
    pub fn replica_state(&self, replica: &str) -> Option<ReplicaState> {
        let id: &ReplicaId = &self.plan(replica).replica.id;
        self.provisioner.state_of(id)
    }

    /// Whether a replica's namespace is a leg in sync now.
    #[must_use]
    pub fn is_in_sync(&self, replica: &str) -> bool {
        let id = self.namespace(replica);
        self.kernel.leg_of(&id).is_some_and(|leg| leg.in_sync)
    }

    /// The array as `/proc/mdstat` draws it; empty while it is not there.
    #[must_use]
    pub fn picture(&self, array: &str) -> String {
        self.kernel.picture(self.array(array)).unwrap_or_default()
    }
}
