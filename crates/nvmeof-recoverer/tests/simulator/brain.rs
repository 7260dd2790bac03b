//! A controller's second: lead, watch, find, begin, and go on with every move that is open.

use std::rc::Rc;

use heal_types::cluster::{Generation, RelocationId};
use heal_types::{Now, Observed, UnknownWhy};
use nvmeof_recoverer::plan::decide::decide;
use nvmeof_recoverer::plan::relocate::{
    Answer, Command, Moved, PhaseKind, Relocation, Seen, Signal,
};
use nvmeof_recoverer::plan::view::{ClusterView, FenceHealth, MonView, Moving};

use crate::api::{LAG, Objects, Stored};
use crate::controller::{Mons, Sent};
use crate::device::Mood;
use crate::world::{NODES, OSDS, World, moment, osd_id, wall};

impl World {
    pub(crate) fn controllers_act(&mut self) {
        for who in 0..self.controllers.len() {
            let controller = &mut self.controllers[who];
            if !controller.alive && self.now >= controller.starts_at {
                controller.alive = true;
            }
            if !controller.alive || self.now < controller.hangs_until {
                continue;
            }
            self.think(who);
        }
    }

    fn api_reached(&self, who: usize) -> bool {
        self.controllers[who].api_link && self.api.up
    }

    fn think(&mut self, who: usize) {
        let now = self.now;
        if self.api_reached(who) {
            if let Some(until) = self.api.lead(who, now) {
                self.controllers[who].memory.leads_until = until;
            }
        }
        self.watch(who);
        if now >= self.controllers[who].memory.leads_until {
            return;
        }
        if now >= self.controllers[who].memory.looks_at {
            self.controllers[who].memory.looks_at = now + 1 + self.dice.below(2);
            self.evaluate(who);
        }
        let Some(view) = self.controllers[who].memory.view.clone() else { return };
        let Some(objects) = self.controllers[who].memory.objects.clone() else { return };
        for (id, stored) in &objects.relocations {
            if !stored.relocation.phase.kind().is_over() {
                self.go_on(who, id, &view);
            }
            if !self.controllers[who].alive {
                return;
            }
        }
    }

    /// What it can see of the objects and of the mons, as late as caches are.
    fn watch(&mut self, who: usize) {
        let now = self.now;
        if self.api_reached(who) {
            let lag = if self.dice.once_in(4) { self.dice.index(LAG + 1) } else { 0 };
            if let Some(objects) = self.api.watched(lag) {
                let memory = &mut self.controllers[who].memory;
                memory.leases.resize(NODES, (u64::MAX, now));
                for (known, renewed) in memory.leases.iter_mut().zip(&objects.leases) {
                    if known.0 == u64::MAX || *renewed > known.0 {
                        *known = (*renewed, now);
                    }
                }
                memory.objects = Some(objects);
                memory.objects_at = now;
            }
        }
        if self.controllers[who].mon_link {
            self.controllers[who].memory.mons = Some(Mons {
                at: now,
                quorum: self.quorum,
                up: self.up.clone(),
                noout: self.noout.clone(),
                started_on: self.started_on.clone(),
            });
        }
    }

    fn evaluate(&mut self, who: usize) {
        let Some(view) = self.view(who) else { return };
        let memory = &mut self.controllers[who].memory;
        memory.findings = memory.detector.look(&view, &self.policy);
        let decision = decide(&view, &memory.findings, &self.policy);
        memory.view = Some(Rc::new(view));
        for (osd, why) in &decision.held {
            self.say(|| format!("c{who} holds {osd}: {why}"));
        }
        if self.api_reached(who) {
            for relocation in decision.begin {
                self.say(|| {
                    let Relocation { id, from, to, cause, .. } = &relocation;
                    format!("c{who} begins {id}: {from} to {to}: {cause}")
                });
                self.api.create(relocation);
            }
        }
        for (osd, mark) in decision.tidy {
            let osd = usize::try_from(osd.number()).unwrap();
            self.take_mark_off(who, osd, mark);
        }
    }

    fn take_mark_off(&mut self, who: usize, osd: usize, mark: Generation) {
        if self.controllers[who].mon_link && self.api_reached(who) {
            let deployment = &mut self.api.now.deployments[osd];
            if deployment.mark.is_none_or(|known| known <= mark) {
                deployment.mark = None;
                self.noout[osd] = false;
            }
        }
    }

    fn view(&self, who: usize) -> Option<ClusterView> {
        let memory = &self.controllers[who].memory;
        let objects = memory.objects.as_ref()?;
        let mut view = (*self.shared_template()).clone();
        view.now = Now { mono: moment(self.now), wall: wall(self.now) };
        view.api_seen = Observed::Known(moment(memory.objects_at));
        let all_clean = self.all_clean();
        if let Some(mons) = &memory.mons {
            let seen = moment(mons.at);
            view.mons = Observed::Known(MonView { seen, quorum: mons.quorum, all_clean });
        }
        for (n, node) in view.nodes.values_mut().enumerate() {
            node.lease_changed = Observed::Known(moment(memory.leases[n].1));
            node.out_of_service = self.nodes[n].out_of_service;
        }
        self.show_osds(who, &mut view, objects);
        for stored in objects.relocations.values() {
            let relocation = &stored.relocation;
            if relocation.phase.kind() == PhaseKind::Failed {
                if let Some(node) = view.nodes.get_mut(&relocation.to) {
                    let until = relocation.since.after(self.policy.hold_down);
                    node.not_before = node.not_before.max(Some(until));
                }
            }
        }
        Some(view)
    }

    fn show_osds(&self, who: usize, view: &mut ClusterView, objects: &Objects) {
        let memory = &self.controllers[who].memory;
        let reach = self.controllers[who].target_link;
        for (osd, shown) in view.osds.values_mut().enumerate() {
            let deployment = objects.deployments[osd];
            let on = deployment.node;
            shown.node = Observed::Known(self.names[on].clone());
            shown.generation = deployment.generation;
            shown.moved = deployment.moved.map(wall);
            shown.marked = deployment.mark;
            if let Some(mons) = &memory.mons {
                shown.up = Observed::Known(mons.up[osd]);
                shown.started_on = Observed::Known(self.names[mons.started_on[osd]].clone());
                if mons.noout[osd] && shown.marked.is_none() {
                    shown.marked = Some(Generation(0));
                }
            }
            let mut last = None;
            for stored in objects.relocations.values() {
                let relocation = &stored.relocation;
                if relocation.osd.id == osd_id(osd) {
                    shown.generation = shown.generation.max(relocation.generation);
                    if last < Some(relocation.generation) {
                        last = Some(relocation.generation);
                        shown.holders = relocation.holders_after();
                    }
                    if !relocation.phase.kind().is_over() {
                        let (id, to) = (relocation.id.clone(), relocation.to.clone());
                        shown.moving = Some(Moving { id, to });
                    }
                }
            }
            // The probe on the node asks its own kernel; without the node there is no answer.
            let answers = |n: usize| {
                let node = &self.nodes[n];
                node.powered && !node.frozen && node.api
            };
            let here = self.devices[osd].session(on).is_some() && self.nodes[on].fabric;
            shown.seen_here = if answers(on) {
                Observed::Known(here)
            } else {
                Observed::Unknown(UnknownWhy::NoAnswer)
            };
            let mut others = (0..NODES).filter(|n| *n != on && answers(*n));
            let elsewhere = others.any(|n| self.nodes[n].fabric);
            shown.seen_elsewhere = Observed::Known(elsewhere);
            if !reach || self.devices[osd].mood == Mood::Silent {
                if let Some(target) = view.targets.get_mut(&shown.domain) {
                    target.fence = FenceHealth::Silent;
                }
            }
        }
    }

    fn fresh(&self, who: usize, id: &RelocationId) -> Option<Rc<Stored>> {
        self.api_reached(who).then(|| self.api.now.relocations.get(id).cloned())?
    }

    /// One step of one move: a signal that is written, or a command that leaves.
    fn go_on(&mut self, who: usize, id: &RelocationId, view: &ClusterView) {
        if self.controllers[who].memory.busy.contains(id) {
            return;
        }
        let Some(stored) = self.fresh(who, id) else { return };
        let relocation = &stored.relocation;
        let others_up = |osd: usize| (0..OSDS).all(|it| it == osd || self.up[it]);
        let osd = usize::try_from(relocation.osd.id.number()).unwrap();
        let seen = Seen {
            view,
            findings: &self.controllers[who].memory.findings,
            policy: &self.policy,
            ok_to_stop: Observed::Known(others_up(osd)),
        };
        if let Some(signal) = relocation.look(&seen) {
            self.signal(who, &stored, signal);
            return;
        }
        if let Some(command) = relocation.command(wall(self.now)) {
            if self.controllers[who].boundary(self.now) {
                self.say(|| format!("c{who} dies before {command}"));
                return;
            }
            let due =
                self.now + if self.dice.once_in(3) { self.dice.below(self.late + 1) } else { 0 };
            self.controllers[who].memory.busy.insert(id.clone());
            let life = self.controllers[who].life;
            self.sent.push(Sent { due, by: who, life, command });
        }
    }

    /// Writes what a signal does, if nobody else has written since.
    pub(crate) fn signal(&mut self, who: usize, stored: &Stored, signal: Signal) {
        let mut next = stored.relocation.clone();
        let kind = signal.kind();
        if let Signal::LossConfirmed(loss) = &signal {
            self.confirmed.insert(next.id.clone(), loss.clone());
        }
        let detail = if self.told.is_some() { format!("{signal:?}") } else { String::new() };
        match next.signal(wall(self.now), signal, &self.policy) {
            Ok(moved) => {
                if next == stored.relocation {
                    return;
                }
                let id = next.id.clone();
                let written = self.api.write(stored.version, next);
                let told = if written { "" } else { ", but somebody else wrote first" };
                if let Moved::To(to) = moved {
                    self.say(|| format!("c{who} {id}: {detail} -> {to}{told}"));
                }
                if self.controllers[who].boundary(self.now) {
                    self.say(|| format!("c{who} dies after {kind}"));
                }
            }
            Err(illegal) => self.violated(&format!("{}: {illegal}", stored.relocation.id)),
        }
    }

    /// Commands arrive, whoever sent them and whenever.
    pub(crate) fn deliver(&mut self) {
        let now = self.now;
        let (due, later): (Vec<Sent>, Vec<Sent>) =
            self.sent.drain(..).partition(|sent| sent.due <= now);
        self.sent = later;
        for sent in due {
            let answer = self.execute(&sent);
            let hears = {
                let controller = &mut self.controllers[sent.by];
                let same = controller.alive && controller.life == sent.life;
                if same {
                    controller.memory.busy.remove(&sent.command.relocation);
                }
                same && !controller.boundary(now) && now >= controller.hangs_until
            };
            if hears {
                self.hear(&sent, answer);
            }
        }
    }

    fn hear(&mut self, sent: &Sent, answer: Answer) {
        let Some(stored) = self.fresh(sent.by, &sent.command.relocation) else { return };
        let signal = stored.relocation.answered(&sent.command, answer, wall(self.now));
        if let Some(signal) = signal {
            self.signal(sent.by, &stored, signal);
        }
    }

    fn execute(&mut self, sent: &Sent) -> Answer {
        let (by, command) = (sent.by, sent.command.clone());
        // A command that left before its sender was cut off arrives all the same.
        let fresh = self.controllers[by].life == sent.life;
        let reached = |link: bool| !fresh || link;
        let links = (
            reached(self.api_reached(by)),
            reached(self.controllers[by].mon_link && self.quorum),
            reached(self.controllers[by].target_link),
        );
        let answer = self.carry_out(&command, links);
        self.say(|| format!("c{by} {command}: {answer:?}"));
        answer
    }

    /// The open moves, as the API server has them.
    pub(crate) fn open_moves(&self) -> Vec<Rc<Stored>> {
        let all = self.api.now.relocations.values();
        all.filter(|stored| !stored.relocation.phase.kind().is_over()).cloned().collect()
    }

    pub(crate) fn move_in(&self, phase: PhaseKind) -> Option<Rc<Stored>> {
        self.open_moves().into_iter().find(|stored| stored.relocation.phase.kind() == phase)
    }

    /// The move a late command belongs to, if it is still known.
    pub(crate) fn move_of(&self, command: &Command) -> Option<Rc<Stored>> {
        self.api.now.relocations.get(&command.relocation).cloned()
    }
}
