//! What a command does in the world, and what its receivers refuse.
//!
//! These are the contracts of the real executors, in short: everything may be done twice, and
//! whoever keeps a generation refuses an older one.

use heal_types::cluster::OsdId;
use nvmeof_recoverer::plan::evidence::Witnesses;
use nvmeof_recoverer::plan::relocate::{Answer, Cause, Command, Effect, Undo};
use nvmeof_recoverer::plan::view::Device as DeviceRef;

use crate::device::{Host, Said};
use crate::world::{OSDS, World, identity, osd_id};

fn index(osd: OsdId) -> usize {
    usize::try_from(osd.number()).unwrap()
}

fn device(device: &DeviceRef) -> usize {
    let number = device.subsystem.as_str().rsplit('-').next();
    number.and_then(|number| number.parse().ok()).filter(|n| *n < OSDS).expect("a device of ours")
}

fn again(what: &str) -> Answer {
    Answer::Again(what.to_owned())
}

fn said(said: Said) -> Answer {
    match said {
        Said::Done => Answer::Done,
        Said::Nothing => again("no answer"),
        Said::No(why) => Answer::Refused(why.to_owned()),
    }
}

impl World {
    pub(crate) fn carry_out(
        &mut self,
        command: &Command,
        (api, mons, target): (bool, bool, bool),
    ) -> Answer {
        let generation = command.generation;
        match &command.effect {
            Effect::Quiet { osd } => {
                if !(api && mons) {
                    return again("the API server or the mons do not answer");
                }
                let deployment = &mut self.api.now.deployments[index(*osd)];
                let newer = deployment.generation > generation
                    || deployment.mark.is_some_and(|mark| mark > generation);
                if newer {
                    return Answer::Refused("a newer move was here".to_owned());
                }
                deployment.mark = Some(generation);
                self.noout[index(*osd)] = true;
                Answer::Done
            }
            Effect::Stop { osd } => self.stop(index(*osd), command, api),
            Effect::Fence { device: at, .. } => {
                if !target {
                    return again("the target does not answer");
                }
                self.judge_fence(command, device(at));
                said(self.devices[device(at)].fence(self.now, generation))
            }
            Effect::Prove { device: at, .. } => match self.devices[device(at)].report() {
                Some(report) if target => Answer::Seen(report),
                _ => again("the target does not answer"),
            },
            Effect::Detach { osd, from, .. } => {
                if !(api && mons) {
                    return again("the API server or the mons do not answer");
                }
                let from = self.host(from);
                self.set_up(index(*osd), false);
                let pod = &mut self.api.now.pods[index(*osd)];
                if pod.is_some_and(|pod| pod.node == from) {
                    *pod = None;
                }
                Answer::Done
            }
            Effect::Admit { device: at, to, .. } => {
                if !target {
                    return again("the target does not answer");
                }
                let to = self.host(to);
                said(self.devices[device(at)].admit(generation, to))
            }
            Effect::Connect { device: at, to, .. } => {
                let to = self.host(to);
                self.connect(device(at), to, api)
            }
            Effect::Place { osd, to, .. } => {
                let to = self.host(to);
                self.place(index(*osd), to, command, api)
            }
            Effect::Release { osd } => self.release(index(*osd), command, api && mons),
            Effect::Restore { osd, device: at, from, undo } => {
                let (osd, from) = (index(*osd), self.host(from));
                self.restore(osd, device(at), from, *undo, command, (api && mons, target))
            }
        }
    }

    fn stop(&mut self, osd: usize, command: &Command, api: bool) -> Answer {
        if !api {
            return again("the API server does not answer");
        }
        let deployment = &mut self.api.now.deployments[osd];
        if deployment.mark != Some(command.generation) {
            return Answer::Refused("it does not carry the mark of this move".to_owned());
        }
        deployment.replicas = 0;
        deployment.generation = command.generation;
        if self.api.now.pods[osd].is_none() {
            Answer::Done
        } else {
            again("its pod is still there")
        }
    }

    /// A Job on the new node: connect, and read the label.
    fn connect(&mut self, osd: usize, to: Host, api: bool) -> Answer {
        let node = &self.nodes[to];
        if !(api && node.api && node.powered && !node.frozen) {
            return again("the Job does not run");
        }
        if !node.fabric {
            return again("the target cannot be reached from there");
        }
        if !self.devices[osd].connect(to) {
            return again("the target does not admit it");
        }
        self.nodes[to].attached.insert(osd);
        Answer::Label(identity(osd))
    }

    fn place(&mut self, osd: usize, to: Host, command: &Command, api: bool) -> Answer {
        if !api {
            return again("the API server does not answer");
        }
        let deployment = &mut self.api.now.deployments[osd];
        if deployment.mark != Some(command.generation) {
            return Answer::Refused("it does not carry the mark of this move".to_owned());
        }
        if deployment.node != to {
            deployment.moved = Some(self.now);
        }
        deployment.node = to;
        deployment.replicas = 1;
        deployment.generation = command.generation;
        let pod = &mut self.api.now.pods[osd];
        if pod.is_some_and(|pod| pod.node != to) {
            *pod = None;
        }
        Answer::Done
    }

    fn release(&mut self, osd: usize, command: &Command, reached: bool) -> Answer {
        if !reached {
            return again("the API server or the mons do not answer");
        }
        let deployment = &mut self.api.now.deployments[osd];
        if deployment.mark.is_none_or(|mark| mark <= command.generation) {
            deployment.mark = None;
            self.noout[osd] = false;
        }
        if deployment.generation <= command.generation {
            deployment.replicas = 1;
        }
        Answer::Done
    }

    fn restore(
        &mut self,
        osd: usize,
        device: usize,
        from: Host,
        undo: Undo,
        command: &Command,
        (reached, target): (bool, bool),
    ) -> Answer {
        if undo >= Undo::Fenced {
            if !target {
                return again("the target does not answer");
            }
            match self.devices[device].admit(command.generation, from) {
                Said::Done => {}
                other @ (Said::Nothing | Said::No(_)) => return said(other),
            }
        }
        if undo >= Undo::Stopped {
            let deployment = &mut self.api.now.deployments[osd];
            if !reached || deployment.generation > command.generation {
                return again("the Deployment cannot be put back");
            }
            deployment.replicas = 1;
        }
        self.release(osd, command, reached)
    }

    /// Whether what the witnesses are said to have seen was ever so: asked of the world, at the
    /// moment the old node's access is taken away.
    fn judge_fence(&mut self, command: &Command, osd: usize) {
        /// A finding may be that old when it is acted on.
        const MEMORY: u64 = 40;
        let Some(stored) = self.move_of(command) else { return };
        if !self.judged.insert(command.relocation.clone()) {
            return;
        }
        let lately = |at: Option<u64>| at.is_some_and(|at| self.now - at <= MEMORY);
        let down = lately(self.last_down[osd]);
        let silent = lately(self.nodes[self.host(&stored.relocation.from)].last_silent);
        let witnesses = match (self.confirmed.get(&command.relocation), &stored.relocation.cause) {
            (Some(loss), _) | (None, Cause::Lost(loss)) => &loss.witnesses,
            (None, Cause::Planned { .. }) => return,
        };
        let wrong = match witnesses {
            Witnesses::LeaseAndMons { .. } if !silent => Some("its node was never silent"),
            Witnesses::LeaseAndMons { .. } | Witnesses::ProbeAndMons { .. } if !down => {
                Some("it was never down")
            }
            Witnesses::LeaseAndMons { .. }
            | Witnesses::ProbeAndMons { .. }
            | Witnesses::OutOfService => None,
        };
        if let Some(wrong) = wrong {
            let osd = osd_id(osd);
            self.violated(&format!("{osd} is fenced although {wrong}"));
        }
    }
}
