//! The kernel that exists only in memory, in the place of the daemon's host.

use super::*;

/// The kernel in memory, as the daemon's host.
#[derive(Debug, Clone)]
pub(super) struct FakeHost {
    pub(super) kernel: Arc<Mutex<FakeKernel>>,
    pub(super) acts: Arc<Mutex<Vec<&'static str>>>,
    pub(super) marked: Arc<Mutex<BTreeSet<DevT>>>,
    /// Acts on arrays do not come back while this is set.
    pub(super) hangs: Arc<AtomicBool>,
    /// What it answers about isolation.
    pub(super) isolation: Arc<Mutex<Isolation>>,
    /// How often it was asked.
    pub(super) isolation_asked: Arc<AtomicUsize>,
    /// A returned leg is busy until udev was waited for.
    pub(super) busy: Arc<AtomicBool>,
}

impl FakeHost {
    pub(super) fn kernel<T>(&self, what: impl FnOnce(&mut FakeKernel) -> T) -> T {
        what(&mut self.kernel.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn acts(&self) -> Vec<&'static str> {
        self.acts.lock().unwrap().clone()
    }
}

impl HostPort for FakeHost {
    fn look(&mut self) -> HostSnapshot {
        self.kernel(|kernel| kernel.snapshot())
    }

    fn glance(&mut self, array: ArrayId) -> HostSnapshot {
        self.kernel(|kernel| kernel.glance(array))
    }

    fn act(&mut self, action: &HostAction) -> HostAnswer {
        // Arming is no array's act: it rests on no record, and no array waits for it.
        if matches!(action, HostAction::SetFastIoFail { .. }) {
            return self.kernel(|kernel| kernel.act(action));
        }
        self.acts.lock().unwrap().push(action.verb());
        while self.hangs.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let re_add = matches!(action, HostAction::ReAddLeg { .. });
        if re_add && self.busy.load(Ordering::Relaxed) {
            let after = Duration::from_secs(600);
            return Outcome::Retry { after, why: RetryWhy::Busy }.into();
        }
        self.kernel(|kernel| kernel.act(action))
    }
}

impl Host for FakeHost {
    fn await_settled(&self, _: DevT) {
        self.busy.store(false, Ordering::Relaxed);
    }

    fn mark_managed(&self, devices: &BTreeSet<DevT>) {
        self.marked.lock().unwrap().clone_from(devices);
    }

    fn stuck_children(&self) -> u64 {
        0
    }

    fn wiring(&mut self, _: &[(ControllerName, Portal)]) -> Option<Wiring> {
        Some(Wiring::default())
    }

    fn read_sockets(
        &mut self,
        _: &[ControllerName],
    ) -> Vec<(ControllerName, Option<SocketReading>)> {
        Vec::new()
    }

    fn read_io(&mut self, _: &[ControllerName]) -> Vec<(ControllerName, IoReading)> {
        Vec::new()
    }

    fn rehearse(&mut self, _: ArrayId, _: Rehearsal) {}

    fn isolation(&mut self) -> Isolation {
        self.isolation_asked.fetch_add(1, Ordering::Relaxed);
        self.isolation.lock().unwrap().clone()
    }
}

/// A host, a provisioner and a disk, which outlive any number of daemons.
/// The kernel's own life: its time is ours, and what it signals is a hint.
pub(super) async fn run_kernel(host: FakeHost, told: mpsc::Sender<Told>) {
    let began = Instant::now();
    let first = host.kernel(|kernel| kernel.advance_to(heal_types::Moment(0)));
    loop {
        tokio::time::sleep(ms(2)).await;
        let target = first.after(began.elapsed());
        let signals = host.kernel(|kernel| {
            let mut signals = Vec::new();
            while kernel.advance_to(target) < target {
                signals.extend(kernel.take_signals());
            }
            signals.extend(kernel.take_signals());
            signals
        });
        for signal in signals {
            let heard: Told = match signal {
                KernelSignal::Md => {
                    Hint { cause: LookCause::Md, signalled_at: Some(clock::moment()) }.into()
                }
                KernelSignal::Uevent { what } => {
                    Hint { cause: LookCause::Uevent { what }, signalled_at: None }.into()
                }
                KernelSignal::Link { index, up } => Told {
                    hint: Some(Hint { cause: LookCause::Link, signalled_at: None }),
                    sign: Some(Sign {
                        event: PathEvent::Link { index, up, removed: false },
                        at: clock::moment(),
                    }),
                    rewired: true,
                },
                KernelSignal::NoPath => {
                    Hint { cause: LookCause::KernelLog, signalled_at: None }.into()
                }
                KernelSignal::Log { controller } => Told {
                    hint: Some(Hint { cause: LookCause::KernelLog, signalled_at: None }),
                    sign: Some(Sign {
                        event: PathEvent::KernelSaid { controller },
                        at: clock::moment(),
                    }),
                    rewired: false,
                },
            };
            if told.send(heard).await.is_err() {
                return;
            }
        }
    }
}
