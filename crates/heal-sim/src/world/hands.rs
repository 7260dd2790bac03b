//! What other hands do to a world: people with `mdadm`, another tool, a reader that sees wrongly, a
//! reboot, a provisioner that changes its mind.

use std::time::Duration;

use heal_core::{LookCause, Mode};
use heal_types::{Alias, NamespaceId};

use super::World;
use crate::invariants::Trouble;
use crate::kernel::Blur;

impl World {
    /// A person fails the replica's leg.
    pub fn failed_by_hand(&mut self, replica: &str) {
        self.say(format!("a person fails the leg of {replica}"));
        let id = self.namespace(replica);
        let array = self.kernel.leg_of(&id).map(|leg| leg.array);
        if self.restart_at.is_some() || self.feed.is_deaf() {
            self.checker.handled.extend(array);
            self.checker.trouble(Trouble::Hand);
        }
        self.kernel.fail_by_hand(&id);
        self.after_kernel();
    }

    /// A person unbinds the replica's faulty leg.
    pub fn removed_by_hand(&mut self, replica: &str) {
        let id = self.namespace(replica);
        let done = self.kernel.remove_by_hand(&id);
        self.say(format!("a person removes the leg of {replica} from its array: {done}"));
        self.after_kernel();
    }

    /// A person adds the replica's device to the array.
    pub fn added_by_hand(&mut self, array: &str, replica: &str) {
        let (id, array_id) = (self.namespace(replica), self.array(array));
        let done = self.kernel.add_by_hand(array_id, &id);
        self.say(format!("a person adds {replica} to {array}: {done}"));
        self.after_kernel();
    }

    /// A person connects the replica's target, and adds whatever it shows to the array.
    pub fn added_from(&mut self, array: &str, replica: &str) {
        self.connected_by_hand(replica);
        let (nqn, array_id) = (self.nqn(replica), self.array(array));
        let done = self.kernel.add_subsystem_by_hand(array_id, &nqn);
        self.say(format!("a person adds what {replica} shows to {array}: {done}"));
        self.after_kernel();
    }

    /// MD learns of a block on the replica's leg that it must not read.
    pub fn bad_block(&mut self, replica: &str) {
        self.say(format!("a block of {replica} cannot be read any more"));
        let id = self.namespace(replica);
        self.kernel.find_bad_block(&id);
        self.after_kernel();
    }

    /// The same, and writing to it does not help.
    pub fn stubborn_bad_block(&mut self, replica: &str) {
        self.say(format!("a block of {replica} cannot be read any more, nor written"));
        let id = self.namespace(replica);
        self.kernel.find_stubborn_bad_block(&id);
        self.after_kernel();
    }

    /// Another tool freezes the array's sync thread, or lets it go on.
    pub fn frozen(&mut self, array: &str, frozen: bool) {
        let word = if frozen { "freezes" } else { "unfreezes" };
        self.say(format!("another tool {word} {array}"));
        let id = self.array(array);
        self.kernel.freeze(id, frozen);
        self.after_kernel();
    }

    /// The host boots again. Its namespaces are back, its arrays are not assembled yet.
    pub fn reboot(&mut self) {
        self.say("the host reboots: no array is assembled yet");
        self.crash_daemon_unless_down();
        self.change_boot();
        let ids: Vec<_> = self.arrays.iter().map(|array| array.id).collect();
        for id in ids {
            self.kernel.stop_array(id);
        }
        self.kernel.reconnect_by_default();
        self.after_kernel();
    }

    /// The array is started from one leg, which came before the others. Answers whether it runs.
    pub fn started_alone_from(&mut self, array: &str, replica: &str) -> bool {
        self.say(format!("{array} is started from {replica} alone"));
        let (id, leg) = (self.array(array), self.namespace(replica));
        let starts = self.kernel.start_array_from(id, &leg);
        if self.kernel.is_parted(id) {
            self.array_is_parted(id, &leg);
        }
        self.after_kernel();
        starts
    }

    /// A person stops an array of which there are two, and assembles the side that had gone on.
    pub(crate) fn decided_for_the_good_side(&mut self, array: &str) {
        self.say(format!("a person decides which side of {array} is the good one"));
        let id = self.array(array);
        self.stops(id);
        self.kernel.decide_for_the_good_side(id);
        self.after_kernel();
    }

    /// For so long a reader cannot read something.
    pub fn blurred_for(&mut self, blur: Blur, time: Duration) {
        self.say(format!("for {time:?} this cannot be read: {blur:?}"));
        if matches!(blur, Blur::Leg(_)) {
            self.checker.trouble(Trouble::Nameless);
        }
        self.kernel.blur(blur);
        self.blurred_until = Some(self.now.mono.after(time));
    }

    /// Whatever could not be read can be read again, and somebody looks.
    pub(crate) fn seen_as_it_is(&mut self) {
        self.blurred_until = None;
        self.kernel.unblur();
        if self.restart_at.is_none() {
            self.look(&LookCause::SafetyScan);
        }
    }

    /// From now on a reader sees something wrongly.
    pub fn blurred(&mut self, blur: Blur) {
        self.say(format!("seen wrongly: {blur:?}"));
        self.kernel.blur(blur);
    }

    /// A reader sees everything as it is again, and looks.
    pub fn sharp(&mut self) {
        self.say("everything is seen as it is");
        self.kernel.unblur();
        self.look(&LookCause::SafetyScan);
    }

    /// One look that sees something wrongly.
    pub fn one_look_with(&mut self, blur: Blur) {
        self.say(format!("one look sees wrongly: {blur:?}"));
        self.kernel.blur(blur);
        self.look(&LookCause::SafetyScan);
        self.kernel.unblur();
    }

    /// The attributes of a replica's block device stay empty for so long.
    pub fn filled_later(&mut self, replica: &str, time: Duration) {
        self.say(format!("the attributes of {replica} are not filled in for {time:?}"));
        let id: NamespaceId = self.namespace(replica);
        self.kernel.fill_later(&id, time);
    }

    /// A person changes the mode.
    pub fn mode(&mut self, mode: Mode) {
        self.say(format!("the mode is {mode:?}"));
        if (self.policy.mode, mode) == (Mode::Observe, Mode::Heal) {
            self.takes_over();
        }
        self.policy.mode = mode;
        for machine in self.machines.values_mut() {
            machine.set_policy(self.policy.clone());
        }
        if self.restart_at.is_none() {
            self.look(&LookCause::Operator);
        }
    }

    /// The record of the array is one that another version of the daemon wrote.
    pub fn record_of_another_version(&mut self, array: &str, schema: u16) {
        self.say(format!("the record of {array} has schema {schema}"));
        let id = self.array(array);
        if let Some(record) = self.disk.get_mut(id) {
            record.schema = schema;
        }
    }

    /// From now on the provisioner knows the array's volume by its name only.
    pub fn known_by_name_only(&mut self, array: &str) {
        self.say(format!("the provisioner knows {array} by its name only"));
        let volume = self.arrays.iter().find(|a| a.name == array).and_then(|a| a.volume.clone());
        if let Some(volume) = volume {
            self.provisioner.forget_array(&volume);
        }
    }

    /// udev has found the array's name, or not yet; somebody looks.
    pub fn name_found(&mut self, array: &str, found: bool) {
        let word = if found { "has found" } else { "has not found" };
        self.say(format!("udev {word} the name of {array}"));
        let id = self.array(array);
        let alias = Alias::new(array).ok().filter(|_| found);
        self.kernel.set_alias(id, alias);
        self.look(&LookCause::Asked);
    }

    /// The disk that the daemon's records stood on is another one.
    pub fn record_lost(&mut self, array: &str) {
        self.say(format!("the record of {array} is lost"));
        let id = self.array(array);
        self.disk.remove(id);
    }

    /// The provisioner wants the replica after all.
    pub fn wanted_again(&mut self, replica: &str) {
        self.say(format!("the provisioner wants {replica} after all"));
        let (volume, id) = (self.volume_of(replica), self.plan(replica).replica.id.clone());
        self.provisioner.want_again(&volume, &id);
    }

    /// The provisioner takes a replica that it offered back.
    pub fn withdrawn(&mut self, replica: &str) {
        self.say(format!("the provisioner takes {replica} back"));
        let (volume, id) = (self.volume_of(replica), self.plan(replica).replica.id.clone());
        self.checker.flaw(&id);
        self.checker.taken_back.insert(id.clone());
        self.provisioner.drop_replica(&volume, &id);
    }

    /// The provisioner grants a replica that the volume has or had, or does no longer.
    pub fn grants_again(&mut self, replica: Option<&str>) {
        match replica {
            Some(replica) => self.say(format!("the provisioner will grant {replica}")),
            None => self.say("the provisioner will grant what it should"),
        }
        let id = replica.map(|replica| self.plan(replica).replica.id.clone());
        self.provisioner.mood.grants_again = id;
    }

    /// The provisioner knows nothing of the array's volume any more.
    pub fn volume_forgotten(&mut self, array: &str) {
        self.say(format!("the provisioner forgets the volume of {array}"));
        let volume = self.arrays.iter().find(|a| a.name == array).and_then(|a| a.volume.clone());
        if let Some(volume) = volume {
            self.provisioner.forget_volume(&volume);
        }
    }
}
