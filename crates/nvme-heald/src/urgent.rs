//! Threads that stand ready for what must not wait.
//!
//! ```text
//!   run(job) ──► one that stands ready? ──► its channel ──► job ──► stands ready again
//!                        │ none
//!                        └──► a new one, which stays if few do
//! ```
//!
//! An isolation takes a few milliseconds, and a new thread would be a good part of that: its stack
//! and its heap are touched for the first time just then. So a few stay, with what they ran last
//! still warm, and they step ahead of everybody ([`heal_host::priority`]); the threads of the
//! runtime's pool step back, because looks and tools can wait.
//!
//! A job that hangs in the kernel keeps its thread and nobody else's: the next job finds another
//! one. The price: up to [`READY`] stacks that do nothing.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// So many threads stay when there is nothing to do.
const READY: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// The threads that stand ready.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standby(Arc<Mutex<Vec<Sender<Job>>>>);

impl Standby {
    /// Runs `job` at once, beside whatever runs. The answer never comes if the job breaks off or no
    /// thread is to be had.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        let mut job: Job = Box::new(move || drop(answer.send(job())));
        loop {
            let ready = self.ready().pop();
            let Some(ready) = ready else { break };
            match ready.send(job) {
                Ok(()) => return answered,
                Err(returned) => job = returned.0, // That one ended: its last job broke off.
            }
        }
        self.start(job);
        answered
    }

    fn start(&self, first: Job) {
        let standby = self.clone();
        let thread = std::thread::Builder::new().name("urgent".into());
        if let Err(error) = thread.spawn(move || standby.serve(first)) {
            tracing::error!(%error, "there is no thread for what is urgent");
        }
    }

    fn serve(self, first: Job) {
        heal_host::priority::step_ahead();
        let (orders, inbox) = channel();
        first();
        while self.stay(&orders) {
            // This thread holds a sender itself, so there is always a next one.
            let Ok(job) = inbox.recv() else { return };
            job();
        }
    }

    fn stay(&self, orders: &Sender<Job>) -> bool {
        let mut ready = self.ready();
        let wanted = ready.len() < READY;
        if wanted {
            ready.push(orders.clone());
        }
        wanted
    }

    fn ready(&self) -> MutexGuard<'_, Vec<Sender<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> std::thread::ThreadId {
        std::thread::current().id()
    }

    async fn until_ready(standby: &Standby, threads: usize) {
        while standby.ready().len() < threads {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_next_job_finds_the_thread_of_the_last_one() {
        let standby = Standby::default();
        let first = standby.run(name).await.unwrap();
        until_ready(&standby, 1).await;
        assert_eq!(standby.run(name).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_job_that_hangs_holds_nobody_up() {
        let standby = Standby::default();
        let (release, held) = channel::<()>();
        let hanging = standby.run(move || held.recv());
        assert_eq!(standby.run(|| 7).await.unwrap(), 7);
        release.send(()).unwrap();
        assert!(hanging.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_job_that_breaks_off_is_told_and_the_next_one_runs() {
        let standby = Standby::default();
        standby.run(|| ()).await.unwrap();
        until_ready(&standby, 1).await;
        assert!(standby.run(|| panic!("as a test")).await.is_err());
        assert_eq!(standby.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn after_a_storm_few_threads_stay() {
        let standby = Standby::default();
        let together = Arc::new(std::sync::Barrier::new(READY + 3));
        let jobs: Vec<_> = (0..READY + 3)
            .map(|_| {
                let together = Arc::clone(&together);
                standby.run(move || together.wait().is_leader())
            })
            .collect();
        for job in jobs {
            job.await.unwrap();
        }
        until_ready(&standby, READY).await;
        assert_eq!(standby.ready().len(), READY);
    }
}
