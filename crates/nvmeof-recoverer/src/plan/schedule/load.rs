//! The load as it will be: what the view shows, with every move of the batch already made.

use std::collections::{BTreeMap, BTreeSet};

use heal_types::cluster::{DomainName, NodeName, OsdId};

use super::score::{self, Score};
use super::{OutWhy, Placed, Proposal, placed};
use crate::plan::Policy;
use crate::plan::view::{ClusterView, NodeView, OsdView, Reach, Resources, TargetView};

/// A node's place in [`Load`].
pub(super) type Index = usize;

/// Every node with what it carries.
pub(super) struct Load<'a> {
    view: &'a ClusterView,
    nodes: Vec<PerNode<'a>>,
    index: BTreeMap<&'a NodeName, Index>,
    domains: Vec<PerDomain<'a>>,
    /// As many domains as one node may carry.
    most_domains: usize,
    /// On so many nodes each domain may be without taking another's place.
    share: usize,
    /// Domains that nodes which may take something could carry besides those they do.
    room: usize,
    most_osds: usize,
    mean_weight: u64,
    /// The least weight that a node which may take something has.
    emptiest: u64,
}

struct PerNode<'a> {
    name: &'a NodeName,
    view: &'a NodeView,
    /// Why it takes nothing at all.
    out: Option<OutWhy>,
    free: Resources,
    weight: u64,
    osds: usize,
    /// Domains it carries, and of each how many OSDs.
    domains: Vec<(Domain, usize)>,
    /// The parts of its score that no move of the batch changes.
    usage: u32,
    io: u32,
    hash: u64,
}

/// A domain's place in [`Load`].
type Domain = usize;

/// What a target says of the nodes.
struct PerDomain<'a> {
    name: &'a DomainName,
    /// Nodes that carry it.
    nodes: usize,
    /// OSDs of it that have no place yet.
    waiting: usize,
    /// Nodes that may take its devices, and how near they are.
    candidates: Vec<(Index, u32)>,
}

/// An OSD to be placed.
#[derive(Clone, Copy)]
pub(super) struct PerOsd<'a> {
    pub(super) id: OsdId,
    pub(super) view: &'a OsdView,
    from: Option<Index>,
    domain: Domain,
}

impl<'a> Load<'a> {
    pub(super) fn new(view: &'a ClusterView, policy: &Policy, avoid: &BTreeSet<NodeName>) -> Self {
        let nodes: Vec<PerNode<'a>> = view
            .nodes
            .iter()
            .map(|(name, node)| PerNode {
                name,
                view: node,
                out: out_for_all(view, policy, name, node, avoid),
                free: node.allocatable.minus(node.requested),
                weight: 0,
                osds: 0,
                domains: Vec::new(),
                usage: score::usage(&node.used),
                io: score::io(&node.io_wait),
                hash: hash(name.as_str()),
            })
            .collect();
        let index: BTreeMap<&NodeName, Index> =
            nodes.iter().enumerate().map(|(index, node)| (node.name, index)).collect();
        let domains = per_domain(view, &nodes, &index);
        let most_domains = view.spare_domains().max(1);
        let able = nodes.iter().filter(|node| node.out.is_none()).count();
        let share = (able.saturating_mul(most_domains) / domains.len().max(1)).max(1);
        let total: u64 = view.osds.values().map(|osd| u64::from(osd.weight)).sum();
        let count = u64::try_from(view.osds.len()).unwrap_or(u64::MAX);
        let mut load = Self {
            view,
            nodes,
            index,
            domains,
            most_domains,
            share,
            room: able.saturating_mul(most_domains),
            most_osds: policy.max_osds_per_node,
            mean_weight: (total / count.max(1)).max(1),
            emptiest: u64::MAX,
        };
        for (id, osd) in &view.osds {
            let at = osd.moving.as_ref().map(|moving| &moving.to).or(osd.node.known());
            let at = at.and_then(|at| load.index.get(at).copied());
            if let (Some(at), Some(osd)) = (at, load.osd(*id)) {
                load.add(&osd, at);
            }
        }
        load.find_emptiest();
        load
    }

    pub(super) fn osd(&self, id: OsdId) -> Option<PerOsd<'a>> {
        let view = self.view.osds.get(&id)?;
        let from = view.node.known().and_then(|node| self.index.get(node).copied());
        let domain = self.domains.binary_search_by_key(&&view.domain, |it| it.name).ok()?;
        Some(PerOsd { id, view, from, domain })
    }

    pub(super) fn name(&self, node: Index) -> &'a NodeName {
        self.nodes[node].name
    }

    /// The OSD no longer counts where it is.
    pub(super) fn take_away(&mut self, id: OsdId) {
        if let Some(osd) = self.osd(id) {
            self.domains[osd.domain].waiting += 1;
            if let Some(from) = osd.from {
                self.remove(&osd, from);
            }
        }
    }

    /// The OSD counts on `node` from now on.
    pub(super) fn put(&mut self, osd: &PerOsd<'a>, node: Index) {
        let domain = &mut self.domains[osd.domain];
        domain.waiting = domain.waiting.saturating_sub(1);
        self.add(osd, node);
    }

    fn add(&mut self, osd: &PerOsd<'_>, at: Index) {
        let node = &mut self.nodes[at];
        let was_emptiest = node.weight == self.emptiest;
        node.free = node.free.minus(osd.view.requests);
        node.weight = node.weight.saturating_add(u64::from(osd.view.weight));
        node.osds = node.osds.saturating_add(1);
        match node.domains.iter_mut().find(|(domain, _)| *domain == osd.domain) {
            Some((_, count)) => *count += 1,
            None => {
                node.domains.push((osd.domain, 1));
                self.domains[osd.domain].nodes += 1;
                if node.out.is_none() {
                    self.room = self.room.saturating_sub(1);
                }
            }
        }
        if was_emptiest {
            self.find_emptiest();
        }
    }

    fn remove(&mut self, osd: &PerOsd<'_>, at: Index) {
        let node = &mut self.nodes[at];
        node.free = node.free.plus(osd.view.requests);
        node.weight = node.weight.saturating_sub(u64::from(osd.view.weight));
        node.osds = node.osds.saturating_sub(1);
        if let Some((_, count)) = node.domains.iter_mut().find(|(domain, _)| *domain == osd.domain)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                let domain = &mut self.domains[osd.domain];
                domain.nodes = domain.nodes.saturating_sub(1);
                node.domains.retain(|(_, count)| *count > 0);
                if node.out.is_none() {
                    self.room = self.room.saturating_add(1);
                }
            }
        }
        if node.out.is_none() {
            self.emptiest = self.emptiest.min(node.weight);
        }
    }

    fn find_emptiest(&mut self) {
        let able = self.nodes.iter().filter(|node| node.out.is_none());
        self.emptiest = able.map(|node| node.weight).min().unwrap_or(0);
    }

    pub(super) fn candidates(&self, osd: &PerOsd<'_>) -> &[(Index, u32)] {
        &self.domains[osd.domain].candidates
    }

    /// Why a candidate of the OSD's domain cannot take it now.
    fn out_now(&self, osd: &PerOsd<'_>, node: Index) -> Option<OutWhy> {
        let at = &self.nodes[node];
        if osd.from == Some(node) {
            return Some(OutWhy::SameNode);
        }
        if at.osds >= self.most_osds {
            return Some(OutWhy::Full);
        }
        if osd.view.requests.memory > at.free.memory {
            return Some(OutWhy::NoMemory);
        }
        if osd.view.requests.cpu_milli > at.free.cpu_milli {
            return Some(OutWhy::NoCpu);
        }
        let full = at.domains.len() >= self.most_domains;
        (full && !self.carries(osd, node)).then_some(OutWhy::TooManyDomains)
    }

    fn carries(&self, osd: &PerOsd<'_>, node: Index) -> bool {
        self.nodes[node].domains.iter().any(|(domain, _)| *domain == osd.domain)
    }

    fn score(&self, osd: &PerOsd<'_>, node: Index, locality: u32, policy: &Policy) -> Score {
        let at = &self.nodes[node];
        let above = at.weight.saturating_sub(self.emptiest);
        Score {
            total: 0,
            balance: score::balance(above, self.mean_weight),
            requests: score::requests(at.free.minus(osd.view.requests), at.view.allocatable),
            usage: at.usage,
            io: at.io,
            locality,
        }
        .weighted(policy.weights)
    }

    /// The best node that can take the OSD.
    ///
    /// A domain that lies on its share of the nodes spreads to more of them only as far as nobody
    /// who still waits needs the room: a node carries only so many domains.
    pub(super) fn best(&self, osd: &PerOsd<'_>, policy: &Policy) -> Option<(Index, Score)> {
        let within = self.is_tight(osd.domain);
        let within = within.then(|| self.best_of(osd, policy, |node| self.carries(osd, node)));
        within.flatten().or_else(|| self.best_of(osd, policy, |_| true))
    }

    fn is_tight(&self, domain: Domain) -> bool {
        let needs = |other: &PerDomain<'_>| {
            self.share.min(other.nodes + other.waiting).saturating_sub(other.nodes)
        };
        let others = self.domains.iter().enumerate().filter(|(index, _)| *index != domain);
        self.domains[domain].nodes >= self.share
            && self.room <= others.map(|(_, other)| needs(other)).sum()
    }

    fn best_of(
        &self,
        osd: &PerOsd<'_>,
        policy: &Policy,
        suits: impl Fn(Index) -> bool,
    ) -> Option<(Index, Score)> {
        self.candidates(osd)
            .iter()
            .filter(|(node, _)| suits(*node) && self.out_now(osd, *node).is_none())
            .map(|(node, locality)| (*node, self.score(osd, *node, *locality, policy)))
            .max_by_key(|(node, score)| (score.total, self.tie(osd, *node)))
    }

    /// The best of the nodes that would still be lighter with the OSD than its own is now; both are
    /// scored as if it were nowhere.
    pub(super) fn gain(&mut self, osd: &PerOsd<'a>, policy: &Policy) -> Option<Proposal> {
        let from = osd.from?;
        let (heavy, weight) = (self.nodes[from].weight, u64::from(osd.view.weight));
        let lighter = |with: u64| with.saturating_add(weight) < heavy;
        // Most OSDs of an even cluster go no further.
        if weight == 0 || !lighter(self.emptiest) {
            return None;
        }
        // A node that may take nothing is no candidate: then the OSD's own is not healthy.
        let (_, near) = *self.candidates(osd).iter().find(|(node, _)| *node == from)?;
        self.remove(osd, from);
        let here = self.score(osd, from, near, policy);
        let there = self.best_of(osd, policy, |node| lighter(self.nodes[node].weight));
        self.add(osd, from);
        let name = |node| self.name(node).clone();
        there.map(|(to, there)| Proposal {
            osd: osd.id,
            from: name(from),
            to: name(to),
            here,
            there,
        })
    }

    /// Decides between equals, the same way in every replica of the controller, and differently for
    /// each OSD.
    fn tie(&self, osd: &PerOsd<'_>, node: Index) -> u64 {
        mix(self.nodes[node].hash ^ mix(u64::from(osd.id.number())))
    }

    /// Lets another OSD of the batch give way to one that found no place.
    pub(super) fn make_room(
        &mut self,
        osd: &PerOsd<'a>,
        batch: &[PerOsd<'a>],
        done: &mut Vec<Placed>,
        policy: &Policy,
    ) -> bool {
        for other in 0..done.len() {
            let Some(giving) = batch.iter().find(|it| it.id == done[other].osd).copied() else {
                continue;
            };
            let Some(&at) = self.index.get(&done[other].to) else {
                continue;
            };
            let Some(locality) =
                self.candidates(osd).iter().find(|(node, _)| *node == at).map(|found| found.1)
            else {
                continue;
            };
            self.remove(&giving, at);
            if self.out_now(osd, at).is_none() {
                let score = self.score(osd, at, locality, policy);
                self.add(osd, at);
                if let Some((elsewhere, better)) = self.best(&giving, policy) {
                    self.put(&giving, elsewhere);
                    done[other] = placed(&giving, self.name(elsewhere), better);
                    done.push(placed(osd, self.name(at), score));
                    return true;
                }
                self.remove(osd, at);
            }
            self.add(&giving, at);
        }
        false
    }

    pub(super) fn explain(
        &self,
        osd: &PerOsd<'_>,
        policy: &Policy,
    ) -> Vec<(NodeName, Result<Score, OutWhy>)> {
        let verdict = |node: Index| match self.out_at_all(osd, node) {
            Some(why) => Err(why),
            None => {
                let found = self.candidates(osd).iter().find(|(it, _)| *it == node);
                Ok(self.score(osd, node, found.map_or(0, |found| found.1), policy))
            }
        };
        (0..self.nodes.len()).map(|node| (self.name(node).clone(), verdict(node))).collect()
    }

    /// How many nodes are out, for which reason.
    pub(super) fn reasons(&self, osd: &PerOsd<'_>) -> BTreeMap<OutWhy, usize> {
        let mut reasons = BTreeMap::new();
        for why in (0..self.nodes.len()).filter_map(|node| self.out_at_all(osd, node)) {
            *reasons.entry(why).or_insert(0) += 1;
        }
        reasons
    }

    fn out_at_all(&self, osd: &PerOsd<'_>, node: Index) -> Option<OutWhy> {
        let at = &self.nodes[node];
        at.out
            .or_else(|| out_for_domain(self.view, &osd.view.domain, at.name))
            .or_else(|| self.out_now(osd, node))
    }

    /// The OSDs of each node, those of the heaviest one first.
    pub(super) fn heaviest_first(&self) -> Vec<Vec<PerOsd<'a>>> {
        let mut here: Vec<(u64, Vec<PerOsd<'a>>)> =
            self.nodes.iter().map(|node| (node.weight, Vec::new())).collect();
        for osd in self.view.osds.keys().filter_map(|id| self.osd(*id)) {
            if let Some(from) = osd.from {
                here[from].1.push(osd);
            }
        }
        here.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        here.into_iter().map(|(_, osds)| osds).collect()
    }
}

fn out_for_all(
    view: &ClusterView,
    policy: &Policy,
    name: &NodeName,
    node: &NodeView,
    avoid: &BTreeSet<NodeName>,
) -> Option<OutWhy> {
    let fresh = node
        .lease_changed
        .is_known_and(|changed| view.now.mono.since(*changed) < policy.lease_silent);
    if node.out_of_service || !node.ready.is_known_and(|ready| *ready) {
        Some(OutWhy::NotReady)
    } else if !fresh || avoid.contains(name) {
        Some(OutWhy::InDoubt)
    } else if !node.schedulable {
        Some(OutWhy::Unschedulable)
    } else if node.not_before.is_some_and(|not_before| view.now.wall < not_before) {
        Some(OutWhy::HeldDown)
    } else if node.vetoed {
        Some(OutWhy::Vetoed)
    } else {
        None
    }
}

fn out_for_domain(view: &ClusterView, domain: &DomainName, name: &NodeName) -> Option<OutWhy> {
    let Some(target) = view.targets.get(domain) else {
        return Some(OutWhy::NotAttachable);
    };
    if !target.attachable.contains(name) {
        return Some(OutWhy::NotAttachable);
    }
    let reach = target.reach.get(name);
    reach
        .is_some_and(|reach| reach.is_known_and(|reach| *reach == Reach::Unreachable))
        .then_some(OutWhy::Unreachable)
}

fn per_domain<'a>(
    view: &'a ClusterView,
    nodes: &[PerNode<'a>],
    index: &BTreeMap<&'a NodeName, Index>,
) -> Vec<PerDomain<'a>> {
    // In the map's order, so that a name is found by halving.
    let of = |(name, target): (&'a DomainName, &'a TargetView)| {
        let able = target.attachable.iter().filter_map(|node| index.get(node).copied());
        let candidates = able
            .filter(|&node| nodes[node].out.is_none())
            .filter(|&node| out_for_domain(view, name, nodes[node].name).is_none())
            .map(|node| (node, score::locality(target.reach.get(nodes[node].name))))
            .collect();
        PerDomain { name, nodes: 0, waiting: 0, candidates }
    };
    view.targets.iter().map(of).collect()
}

/// FNV-1a: the same in every build, which the standard library's hasher does not promise.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Spreads the bits (the finaliser of Vigna's SplitMix64).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
